//! The page on a step's costs says what the program computes.

use std::path::Path;

use tokenflow_gpu_check::step::page_tables;

const BEGIN: &str = "<!-- floors -->\n";
const END: &str = "<!-- end of floors -->";

#[test]
fn the_page_has_the_programs_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/backend/cuda/STEP.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (_, rest) = page.split_once(BEGIN).unwrap();
    let (tables, _) = rest.split_once(END).unwrap();
    assert_eq!(tables.trim(), page_tables().trim(), "{} is not what `tokenflow-gpu-check floors` prints", path.display());
}
