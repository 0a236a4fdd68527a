//! A document of a given length: what a server without a registry answers with, so that it sends as much as an
//! nsqlookupd does.

/// The variable that tells a server how long a body it would best answer with; `floor` listens to it.
pub const BODY_BYTES: &str = "LOOKUPD_PERF_BODY_BYTES";

/// Valid JSON of exactly so many bytes, two at least.
pub fn document(bytes: usize) -> String {
    format!("{{{}}}", " ".repeat(bytes.saturating_sub(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_size_asked_for() {
        for bytes in [2, 3, 442] {
            let document = document(bytes);
            assert_eq!(document.len(), bytes);
            serde_json::from_str::<serde_json::Value>(&document).expect("valid JSON");
        }
    }
}
