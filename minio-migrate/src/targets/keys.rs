//! Keys that MinIO refuses, by its own rules (RELEASE.2025-09-07T16-13-09Z: IsValidObjectName and IsValidObjectPrefix in
//! cmd/object-api-utils.go, hasBadPathComponent in cmd/generic-handlers.go, checkObjectNameForLengthAndSlash in
//! cmd/object-api-input-checks.go).

/// The longest key, in bytes.
const LONGEST: usize = 1024;

/// The longest part between slashes, in bytes: it is a folder on a drive.
const LONGEST_PART: usize = 255;

/// Why MinIO refuses a key; none where it does not. A key that ends with a slash is taken where it has no bytes.
pub fn refused(key: &str) -> Option<&'static str> {
    let mut parts = key.split(['/', '\\']);
    if key.is_empty() {
        Some("it is empty")
    } else if key.len() > LONGEST {
        Some("it is longer than 1024 bytes")
    } else if key.starts_with('/') {
        Some("it begins with a slash")
    } else if key.contains("//") {
        Some("it has two slashes in a row")
    } else if key.contains('\0') {
        Some("it has a byte 0")
    } else if parts.clone().any(|part| matches!(part.trim(), "." | "..")) {
        Some("a part of it is . or ..")
    } else if parts.any(|part| part.len() > LONGEST_PART) {
        Some("a part of it is longer than 255 bytes")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_can_be_no_path_are_refused() {
        let long = format!("{}/x", "é".repeat(128));
        for key in [
            "",
            "/a",
            "a//b",
            "a/../b",
            "./a",
            "a/ .. /b",
            "a/.",
            "a\0b",
            "a\\..\\b",
            &long,
            &"x/".repeat(520),
        ] {
            assert!(refused(key).is_some(), "{key:?}");
        }
        let longest = format!("{}/x", "x".repeat(255));
        for key in [
            "a",
            "a/b",
            "a b+c%é&=?\"'",
            "...",
            "a/...b",
            ".a/..b",
            "folder/",
            &longest,
        ] {
            assert_eq!(refused(key), None, "{key:?}");
        }
    }
}
