//! Enums of reasons that people read as sentences and scripts by codes.

/// Declares an enum of reasons: each with what it is about, its code, which never changes, and its sentence.
/// What follows the semicolon passes on the reasons of another such enum.
macro_rules! coded {
    ($(#[$meta:meta])* $name:ident {
        $($variant:ident $({ $($field:ident: $kind:ty),* })? = $code:literal: $sentence:literal,)*
        $(; $($outer:ident($inner:ty),)*)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum $name {
            $(#[doc = $sentence] $variant $({ $(#[doc = stringify!($field)] $field: $kind),* })?,)*
            $($(#[doc = stringify!($inner)] $outer($inner),)*)?
        }

        impl $name {
            /// The name for scripts: in snake_case, and it never changes.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Self::$variant $({ $($field: _),* })? => $code,)*
                    $($(Self::$outer(inner) => inner.code(),)*)?
                }
            }

            /// All codes.
            #[cfg(test)]
            pub(crate) fn codes() -> Vec<&'static str> {
                let own: Vec<&'static str> = vec![$($code),*];
                let inner: Vec<Vec<&'static str>> = vec![$($(<$inner>::codes(),)*)?];
                [vec![own], inner].concat().concat()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant $({ $($field),* })? => write!(out, $sentence),)*
                    $($(Self::$outer(inner) => inner.fmt(out),)*)?
                }
            }
        }
    };
}

pub(crate) use coded;
