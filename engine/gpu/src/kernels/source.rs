//! Texts of kernels and what identifies them: a file's own text, the headers that it reaches, and definitions.

use sha2::{Digest, Sha256};

/// A file's name and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

/// Files to be compiled, each by itself; the slowest are best first.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    pub files: Vec<Source<'a>>,
    /// Found by name where a text includes them.
    pub headers: Vec<Source<'a>>,
    /// `NAME` or `NAME=value`; they choose among the kernels of a file, which without any has them all.
    pub defines: Vec<String>,
}

impl<'a> Sources<'a> {
    /// The headers that a file reaches, in the order in which it does.
    pub fn headers_of(&self, file: Source<'a>) -> Vec<Source<'a>> {
        let mut reached: Vec<Source> = Vec::new();
        let mut texts = vec![file.text];
        while let Some(text) = texts.pop() {
            for name in included(text) {
                if let Some(header) = self.headers.iter().find(|h| h.name == name && !reached.contains(h)) {
                    reached.push(*header);
                    texts.push(header.text);
                }
            }
        }
        reached
    }

    /// What the file's binaries depend on, whatever compiles them: 32 hexadecimal digits.
    pub(super) fn key(&self, file: Source<'a>) -> String {
        key_of(&[&[self.text_key(file).as_str()], &self.defines.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat())
    }

    /// What a binary is called that was made without definitions, with all of the file's kernels, for several cards.
    pub fn prebuilt_name(&self, file: Source<'a>) -> String {
        format!("{}-{}.fatbin", stem(file.name), self.text_key(file))
    }

    fn text_key(&self, file: Source<'a>) -> String {
        let mut headers = self.headers_of(file);
        headers.sort_by_key(|h| h.name);
        key_of(&[file].iter().chain(&headers).flat_map(|source| [source.name, source.text]).collect::<Vec<_>>())
    }
}

pub(super) fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// A key of several parts, none of which can run into the next.
pub(super) fn key_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn included(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let name = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?.trim_start().strip_prefix('"')?;
        name.split_once('"').map(|(name, _)| name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(far: &'static str, other: &'static str, define: Option<&str>) -> Sources<'static> {
        Sources {
            files: vec![Source { name: "a.cu", text: "#include \"near.cuh\"\n" }],
            headers: vec![
                Source { name: "near.cuh", text: "#pragma once\n  # include \"far.cuh\" // why\n#include <vendor.h>\n" },
                Source { name: "far.cuh", text: far },
                Source { name: "other.cuh", text: other },
            ],
            defines: define.map(Into::into).into_iter().collect(),
        }
    }

    #[test]
    fn a_key_is_of_what_a_file_reaches() {
        let key = |s: &Sources<'static>| s.key(s.files[0]);
        let first = sources("1", "1", None);
        let names: Vec<&str> = first.headers_of(first.files[0]).iter().map(|h| h.name).collect();
        assert_eq!(names, ["near.cuh", "far.cuh"]);
        assert_eq!(key(&first), key(&sources("1", "2", None)), "a header that it does not include");
        assert_ne!(key(&first), key(&sources("2", "1", None)), "a header's header");
        assert_ne!(key(&first), key(&sources("1", "1", Some("ONLY=1"))), "a definition");
        let prebuilt = |s: &Sources<'static>| s.prebuilt_name(s.files[0]);
        assert_eq!(prebuilt(&first), prebuilt(&sources("1", "1", Some("ONLY=1"))), "all kernels are in it");
        assert_ne!(prebuilt(&first), prebuilt(&sources("2", "1", None)));
        assert_ne!(key_of(&["ab", "c"]), key_of(&["a", "bc"]));
    }

    #[test]
    fn headers_that_include_each_other_end() {
        let headers = vec![Source { name: "a", text: "#include \"b\"" }, Source { name: "b", text: "#include \"a\"\n#include \"b\"" }];
        let sources = Sources { files: vec![Source { name: "f", text: "#include \"a\"" }], headers, defines: Vec::new() };
        assert_eq!(sources.headers_of(sources.files[0]).len(), 2);
    }
}
