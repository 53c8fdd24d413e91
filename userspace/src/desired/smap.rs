//! Values of `other_config` and other maps of texts, as Open vSwitch reads them (OVS `lib/smap.c`, `lib/util.c`).

use std::collections::BTreeMap;

/// Returns a boolean that is off unless it is set (`smap_get_bool` with a default of false): "true" in any case of
/// letters, and nothing else.
pub(super) fn is_true(map: &BTreeMap<String, String>, key: &str) -> bool {
    map.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Returns an integer (`smap_get_int`), or `None` where Open vSwitch takes its default: a decimal number of 32 bits
/// (`strtoll`), with blanks before it and none behind.
pub(super) fn int(map: &BTreeMap<String, String>, key: &str) -> Option<i32> {
    // The blanks of C's `isspace`; Rust's lack the vertical tab.
    let blank = |c: char| matches!(c, ' ' | '\t'..='\r');
    map.get(key)?.trim_start_matches(blank).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: &str) -> BTreeMap<String, String> {
        [("key".to_owned(), value.to_owned())].into()
    }

    #[test]
    fn booleans_are_read_whatever_the_case_and_nothing_else_is_one() {
        for value in ["true", "True", "TRUE", "tRuE"] {
            assert!(is_true(&map(value), "key"), "{value:?}");
        }
        for value in ["", "1", "yes", "on", " true", "true ", "false", "truee"] {
            assert!(!is_true(&map(value), "key"), "{value:?}");
        }
        assert!(!is_true(&BTreeMap::new(), "key"));
    }

    #[test]
    fn integers_are_read_as_strtoll_does() {
        let values = [
            ("60", Some(60)),
            ("007", Some(7)),
            ("+5", Some(5)),
            ("-4", Some(-4)),
            (" \t\x0b20", Some(20)),
            ("2147483647", Some(i32::MAX)),
            ("2147483648", None),
            ("60 ", None),
            ("6 0", None),
            ("0x10", None),
            ("1e3", None),
            ("60s", None),
            ("", None),
            ("-", None),
        ];
        for (value, expected) in values {
            assert_eq!(int(&map(value), "key"), expected, "{value:?}");
        }
        assert_eq!(int(&BTreeMap::new(), "key"), None);
    }
}
