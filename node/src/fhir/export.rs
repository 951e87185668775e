//! Writes resources as NDJSON, the form of FHIR's bulk data: one resource a line, which the importer reads
//! back as it stands.

use std::io::{self, Write};

/// Writes the JSON text of one resource as one line. Line ends between its tokens become spaces; none can
/// stand inside a JSON string.
pub fn write_line(out: &mut (impl Write + ?Sized), resource: &str) -> io::Result<()> {
    for (i, part) in resource.trim().split(['\n', '\r']).enumerate() {
        if i > 0 {
            out.write_all(b" ")?;
        }
        out.write_all(part.as_bytes())?;
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_one_line() {
        let mut out = Vec::new();
        write_line(&mut out, "{\r\n  \"a\": \"\\n\"\n}\n").unwrap();
        write_line(&mut out, "{\"b\":1.00}").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{    \"a\": \"\\n\" }\n{\"b\":1.00}\n");
    }
}
