//! What is kept of a BPF object, and what of it counts when two are compared.

use anyhow::{Context, Result, ensure};
use object::{
    Endianness,
    build::elf::{Builder, SectionData},
    elf,
    read::{
        Object, ObjectSection, ObjectSymbol, RelocationTarget,
        elf::{ElfFile64, FileHeader},
    },
};

/// Length of an instruction, bytes.
const INSTRUCTION: usize = 8;

/// Sections that the kernel or the loader acts upon, besides those of instructions.
const DATA_SECTIONS: [&str; 4] = ["license", "maps", ".rodata", ".data"];

/// Drops DWARF and keeps BTF, which the kernel wants for its error messages and the loader for functions.
pub fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    let is_debug = |name: &[u8]| name.starts_with(b".debug") || name.starts_with(b".rel.debug");
    for section in &mut builder.sections {
        section.delete = is_debug(section.name.as_slice());
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and symbols in one table; the builder wants one for each.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = elf::SHT_STRTAB;
        names.data = SectionData::SectionString;
    }
    ensure!(builder.sections.iter().any(|section| section.name.as_slice() == b".BTF"), "the object has no .BTF: was it linked with --btf?");
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// One section as it acts: its bytes, and what its relocations point to.
struct Section {
    name: String,
    bytes: Vec<u8>,
    relocations: Vec<(u64, String)>,
    is_code: bool,
}

/// What of two objects differs in effect, in words; line numbers, symbol names of functions and the order of sections do not count.
pub fn differences(one: &[u8], other: &[u8]) -> Result<Vec<String>> {
    let (one, other) = (sections(one).context("read the committed object")?, sections(other).context("read the built object")?);
    let mut differences = Vec::new();
    for section in &one {
        match other.iter().find(|candidate| candidate.name == section.name) {
            Some(same) => differences.extend(section.difference(same)),
            None => differences.push(format!("{} is only in the committed object", section.name)),
        }
    }
    for section in other.iter().filter(|section| !one.iter().any(|known| known.name == section.name)) {
        differences.push(format!("{} is only in the built object", section.name));
    }
    Ok(differences)
}

impl Section {
    fn difference(&self, other: &Self) -> Option<String> {
        let name = &self.name;
        if self.bytes.len() != other.bytes.len() {
            return Some(format!("{name} has {} bytes and {}", self.bytes.len(), other.bytes.len()));
        }
        if let Some(at) = self.bytes.iter().zip(&other.bytes).position(|(one, other)| one != other) {
            return Some(match self.is_code {
                true => format!("{name} differs from instruction {} on", at / INSTRUCTION),
                false => format!("{name} differs from byte {at} on"),
            });
        }
        (self.relocations != other.relocations).then(|| format!("{name} refers to other symbols"))
    }
}

/// The sections that act, by name.
fn sections(object: &[u8]) -> Result<Vec<Section>> {
    let file = ElfFile64::<Endianness>::parse(object)?;
    ensure!(file.elf_header().e_machine(file.endian()) == elf::EM_BPF, "not a BPF object");
    let mut sections = Vec::new();
    for section in file.sections() {
        let name = section.name()?;
        let object::SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let is_code = sh_flags & u64::from(elf::SHF_EXECINSTR) != 0;
        if section.size() == 0 || !(is_code || DATA_SECTIONS.iter().any(|data| name.starts_with(data))) {
            continue;
        }
        let mut relocations = Vec::new();
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(index)?;
            let target = match symbol.section_index() {
                // Maps are found by name, code and constants by place.
                Some(section) if file.section_by_index(section)?.name()? == "maps" => symbol.name()?.to_owned(),
                Some(section) => format!("{}+{}", file.section_by_index(section)?.name()?, symbol.address()),
                None => symbol.name()?.to_owned(),
            };
            relocations.push((offset, format!("{target}+{}", relocation.addend())));
        }
        relocations.sort();
        sections.push(Section { name: name.to_owned(), bytes: section.data()?.to_vec(), relocations, is_code });
    }
    ensure!(sections.iter().any(|section| section.is_code), "the object has no program");
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &[u8] = include_bytes!("../../../ebpf/prebuilt/tokenflow.o");

    #[test]
    fn the_committed_object_has_code_maps_and_licence() {
        let sections = sections(COMMITTED).unwrap();
        for name in ["sockops", "maps", "license", ".rodata"] {
            assert!(sections.iter().any(|section| section.name == name), "{name}");
        }
        let code = sections.iter().find(|section| section.name == "sockops").unwrap();
        assert!(code.is_code && code.relocations.iter().any(|(_, target)| target == "CONNECTIONS+0"));
    }

    #[test]
    fn stripping_again_changes_nothing_that_acts() {
        assert_eq!(differences(COMMITTED, &strip(COMMITTED).unwrap()).unwrap(), [""; 0]);
    }

    #[test]
    fn a_changed_instruction_a_changed_map_and_a_changed_constant_are_seen() {
        let file = ElfFile64::<Endianness>::parse(COMMITTED).unwrap();
        for (name, seen) in [
            ("sockops", "sockops differs from instruction 3 on"),
            ("maps", "maps differs from byte 24 on"),
            (".rodata", ".rodata differs from byte 24 on"),
        ] {
            let (start, _) = file.section_by_name(name).unwrap().file_range().unwrap();
            let mut changed = COMMITTED.to_vec();
            changed[start as usize + 24] ^= 1;
            assert_eq!(differences(COMMITTED, &changed).unwrap(), [seen]);
        }
    }

    #[test]
    fn what_is_no_bpf_object_is_refused() {
        assert!(strip(b"\x7fELF").is_err());
        assert!(differences(COMMITTED, &COMMITTED[..100]).is_err());
        assert!(differences(&[], COMMITTED).is_err());
    }
}
