// Markdown as models write it, made of elements and text nodes: nothing that a model says is ever read as HTML, and nothing is loaded for it.
// What is no Markdown known here is shown as it is.

/** Lists in lists and quotes in quotes beyond this are text. */
const DEEPEST = 6;
/** Short rows of a table are filled up to as many cells. */
const PADDED = 50;

/** Shows `text` in `element`; blocks that have not changed since the last time keep their elements, and with them a selection. */
export function showMarkdown(element, text) {
  const blocks = parse(text), had = element.shownBlocks ?? [];
  let same = 0;
  while (same < had.length && same < blocks.length && had[same].source === blocks[same].source && had[same].closed === blocks[same].closed) same++;
  while (element.childNodes.length > same) element.lastChild.remove();
  fill(element, blocks.slice(same).map((block) => render(block, 0)));
  element.shownBlocks = blocks;
}

// None of these may take longer than the line is long: a model can repeat anything thousands of times.
const FENCE = /^ {0,3}(`{3,}|~{3,})([^]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s([^]*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:\s+|$)/;
const QUOTE = /^ {0,3}>\s?/;
const TABLE_RULE = /^:?-+:?$/;

/** A fence's mark and language, or null. */
function fenceOf(line) {
  const [, mark, info] = FENCE.exec(line) ?? [];
  return mark && !info.includes("`") ? { mark, language: /^\S*/.exec(info.trim())[0] } : null;
}

/** A heading's text: a closing run of # stands apart from it. */
function headingText(rest) {
  const text = rest.trim();
  let end = text.length;
  while (text[end - 1] === "#") end--;
  return end === 0 || /\s/.test(text[end - 1]) ? text.slice(0, end).trim() : text;
}

const isTableRule = (line) => line.includes("-") && cells(line).every((cell) => TABLE_RULE.test(cell));

/** Blocks, each with the lines that it came from. */
function parse(text) {
  const lines = text.split("\n"), blocks = [];
  let i = 0;
  const take = (kind, from, more) => blocks.push({ kind, source: lines.slice(from, i).join("\n"), closed: true, ...more });
  while (i < lines.length) {
    const from = i, line = lines[i];
    const fence = fenceOf(line), heading = HEADING.exec(line);
    if (line.trim() === "") {
      i++;
    } else if (fence) {
      const end = new RegExp(`^ {0,3}${fence.mark[0]}{${fence.mark.length},}\\s*$`);
      i++;
      while (i < lines.length && !end.test(lines[i])) i++;
      const code = lines.slice(from + 1, i).join("\n"), closed = i < lines.length;
      i = Math.min(i + 1, lines.length);
      take("code", from, { code, language: fence.language, closed });
    } else if (heading) {
      i++;
      take("heading", from, { level: heading[1].length, text: headingText(heading[2]) });
    } else if (RULE.test(line)) {
      i++;
      take("rule", from);
    } else if (QUOTE.test(line)) {
      while (i < lines.length && QUOTE.test(lines[i])) i++;
      take("quote", from, { text: lines.slice(from, i).map((line) => line.replace(QUOTE, "")).join("\n") });
    } else if (ITEM.test(line)) {
      const items = list(lines, i);
      i = items.end;
      take("list", from, items);
    } else if (line.includes("|") && isTableRule(lines[i + 1] ?? "")) {
      i += 2;
      while (i < lines.length && lines[i].includes("|")) i++;
      take("table", from, { rows: [line, ...lines.slice(from + 2, i)].map(cells) });
    } else {
      i++;
      while (i < lines.length && lines[i].trim() !== "" && !begins(lines[i])) i++;
      take("paragraph", from, { text: lines.slice(from, i).join("\n") });
    }
  }
  return blocks;
}

const begins = (line) => fenceOf(line) !== null || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);

/** The items of a list that begins at a line; what is indented below an item belongs to it. */
function list(lines, from) {
  const ordered = /\d/.test(ITEM.exec(lines[from])[2]), items = [];
  let i = from;
  while (i < lines.length) {
    const item = ITEM.exec(lines[i]);
    if (!item || RULE.test(lines[i]) || /\d/.test(item[2]) !== ordered) break;
    const own = [lines[i++].slice(item[0].length)];
    const indented = (line) => /^(?: {2,}|\t)/.test(line);
    for (; i < lines.length; i++) {
      const blank = lines[i].trim() === "";
      if (blank && !indented(lines[i + 1] ?? "")) break;
      if (!blank && !indented(lines[i]) && begins(lines[i])) break;
      if (!blank && !indented(lines[i]) && lines[i - 1].trim() === "") break;
      own.push(lines[i].replace(new RegExp(`^(?:\\t| {1,${item[0].length}})`), ""));
    }
    items.push(own.join("\n"));
    if (lines[i]?.trim() === "" && ITEM.test(lines[i + 1] ?? "")) i++;
  }
  return { items, ordered, start: ordered ? parseInt(ITEM.exec(lines[from])[2], 10) : 1, end: i };
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

/** Adds one after the other: as arguments of one call there can be too many. */
function fill(element, children) {
  for (const child of children) element.append(child);
  return element;
}

/** An element with these within it, or lists of them. */
const make = (name, ...children) => fill(document.createElement(name), children.flat());

function render(block, depth) {
  switch (block.kind) {
    case "code": return renderCode(block);
    // The page's own headings are the first two levels.
    case "heading": return make(`h${Math.min(block.level + 2, 5)}`, inline(block.text, 0));
    case "rule": return make("hr");
    case "quote": return make("blockquote", inner(block.text, depth));
    case "list": {
      const list = make(block.ordered ? "ol" : "ul", block.items.map((item) => make("li", inner(item, depth, true))));
      if (block.ordered && block.start !== 1) list.start = block.start;
      return list;
    }
    case "table": return renderTable(block.rows);
    default: return make("p", inline(block.text, 0));
  }
}

/** Blocks within a block. An item's only paragraph needs no element of its own. */
function inner(text, depth, tight = false) {
  if (depth >= DEEPEST) return [document.createTextNode(text)];
  const blocks = parse(text);
  return blocks.flatMap((block, i) => (tight && i === 0 && block.kind === "paragraph" ? inline(block.text, 0) : [render(block, depth + 1)]));
}

function renderCode({ code, language }) {
  const button = make("button", "Copy"), pre = make("pre", make("code", code));
  button.type = "button";
  button.className = "quiet copy";
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const figure = make("figure", make("figcaption", language || "code", button), pre);
  figure.className = "code";
  return figure;
}

function renderTable([head, ...rows]) {
  const table = document.createElement("table"), titles = table.createTHead().insertRow(), body = table.createTBody();
  fill(titles, head.map((text) => make("th", inline(text, 0))));
  for (const row of rows) {
    const shown = body.insertRow();
    for (let i = 0; i < Math.min(head.length, Math.max(row.length, PADDED)); i++) fill(shown.insertCell(), inline(row[i] ?? "", 0));
  }
  const scroll = make("div", table);
  scroll.className = "table";
  scroll.tabIndex = 0;
  return scroll;
}

const SPANS = [
  [/\*\*(?=\S)([^]{0,2000}?\S)\*\*(?!\*)/y, (m, depth) => make("strong", inline(m[1], depth + 1))],
  [/\b__(?=\S)([^]{0,2000}?\S)__\b/y, (m, depth) => make("strong", inline(m[1], depth + 1))],
  [/\*(?=[^\s*])([^*]{0,2000}?[^\s*])\*(?!\*)/y, (m, depth) => make("em", inline(m[1], depth + 1))],
  [/(?<!\w)_(?=[^\s_])([^_]{0,2000}?[^\s_])_(?!\w)/y, (m, depth) => make("em", inline(m[1], depth + 1))],
  [/~~(?=\S)([^]{0,2000}?\S)~~/y, (m, depth) => make("del", inline(m[1], depth + 1))],
  [/!?\[([^\[\]]{1,500})\]\((https?:\/\/[^\s()<>"]{1,2000})(?:\s+"[^"]{0,200}")?\)/y, (m) => link(m[1], m[2])],
  [/<(https?:\/\/[^\s<>"]{1,2000})>/y, (m) => link(m[1], m[1])],
  [/https?:\/\/[^\s<>"'`]{1,2000}[^\s<>"'`.,;:!?)\]]/y, (m) => link(m[0], m[0])],
];
const BACKTICKS = /`+/y;
const ESCAPED = /\\([\\`*_{}[\]()#+\-.!|<>~])/y;

/** Where runs of backticks begin, by their length, the first one last. */
function backticks(text) {
  const runs = new Map();
  for (const { 0: run, index } of text.matchAll(/`+/g)) {
    if (!runs.has(run.length)) runs.set(run.length, []);
    runs.get(run.length).push(index);
  }
  runs.forEach((starts) => starts.reverse());
  return runs;
}

/** Text nodes and elements of a line of text. */
function inline(text, depth) {
  const nodes = [], runs = backticks(text);
  let plain = "", i = 0;
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
  };
  const matched = (pattern) => {
    pattern.lastIndex = i;
    return pattern.exec(text);
  };
  while (i < text.length) {
    let escaped;
    if (text[i] === "\\" && (escaped = matched(ESCAPED))) {
      plain += escaped[1];
      i += 2;
      continue;
    }
    if (text[i] === "`") {
      // The next run of the same length closes the code; without one the backticks are text.
      const run = matched(BACKTICKS)[0], starts = runs.get(run.length) ?? [];
      while (starts.at(-1) < i + run.length) starts.pop();
      const end = starts.at(-1);
      if (end === undefined) {
        plain += run;
        i += run.length;
      } else {
        flush();
        nodes.push(make("code", text.slice(i + run.length, end).replace(/^ (.*) $/s, "$1")));
        i = end + run.length;
      }
      continue;
    }
    const special = depth < DEEPEST && "*_~![<h".includes(text[i]);
    const span = special && SPANS.map(([pattern, make]) => [matched(pattern), make]).find(([match]) => match);
    if (!span) {
      plain += text[i++];
      continue;
    }
    flush();
    nodes.push(span[1](span[0], depth));
    i += span[0][0].length;
  }
  flush();
  return nodes;
}

/** Opens elsewhere, tells nothing of this page, and shows where it goes. */
function link(text, url) {
  const anchor = make("a", text);
  anchor.href = anchor.title = url;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer";
  return anchor;
}
