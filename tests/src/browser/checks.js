(() => {
  const faults = [];
  const shown = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const nameOf = (element) => `${element.localName}${element.id ? `#${element.id}` : ""}${typeof element.className === "string" && element.className ? `.${element.className.split(" ").join(".")}` : ""}`;

  // Contrast: every text against the first background behind it that is not see-through (WCAG 2.2, 1.4.3).
  const parse = (colour) => {
    const [r, g, b, a = 1] = (colour.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    return { r, g, b, a };
  };
  const over = (top, below) => ({
    r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a), b: top.b * top.a + below.b * (1 - top.a), a: 1,
  });
  const background = (element) => {
    if (!element) return { r: 255, g: 255, b: 255, a: 1 };
    const own = parse(getComputedStyle(element).backgroundColor);
    return own.a === 1 ? own : over(own, background(element.parentElement));
  };
  const luminance = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode()); ) {
    const element = node.parentElement;
    if (!node.data.trim() || !shown(element) || element.closest("script, style, :disabled, option")) continue;
    const style = getComputedStyle(element), back = background(element);
    const [light, dark] = [luminance(over(parse(style.color), back)), luminance(back)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05), size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if (ratio < wanted) faults.push(`too faint (${ratio.toFixed(2)}, wanted ${wanted}): "${node.data.trim().slice(0, 40)}" in ${nameOf(element)}`);
  }

  // Width: nothing sticks out of the screen but what lies in a box that scrolls by itself.
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) faults.push(`the page is ${document.documentElement.scrollWidth} wide on a screen of ${width}`);
  const scrolls = (element) => element && element !== document.body && (/auto|scroll|hidden|clip/.test(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || !shown(element) || element.closest(".heard, .skip") || scrolls(element.parentElement)) continue;
    if (box.right > width + 0.5 || box.left < -0.5) faults.push(`sticks out (${box.left.toFixed(0)} to ${box.right.toFixed(0)} of ${width}): ${nameOf(element)}`);
  }

  // Names: what can be operated says what it is; and a finger can hit it (WCAG 2.2, 2.5.8).
  for (const control of document.querySelectorAll("button, input, select, textarea, summary")) {
    if (!shown(control)) continue;
    const name = control.getAttribute("aria-label") || control.labels?.[0]?.textContent || control.textContent;
    if (!name?.trim()) faults.push(`has no name: ${nameOf(control)}`);
    const { width, height } = control.getBoundingClientRect();
    if (Math.min(width, height) < 24 && control.type !== "radio" && control.type !== "checkbox") faults.push(`too small to hit (${width.toFixed(0)} x ${height.toFixed(0)}): ${nameOf(control)}`);
  }
  for (const box of document.querySelectorAll("body *")) {
    const style = getComputedStyle(box);
    const overflows = shown(box) && /auto|scroll/.test(style.overflowX + style.overflowY) && (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1);
    if (overflows && box.tabIndex < 0) faults.push(`scrolls, but not by keyboard: ${nameOf(box)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => faults.push(`two elements are #${id}`));
  return faults;
})()
