//! Loops that are compiled once for every kind of vector and run with the widest there is.

/// Declares a loop over slices as a type whose fields are its arguments; `Arch::dispatch` runs it.
///
/// A closure would do where it is small: one that the compiler does not inline is compiled for the
/// least processor, and says nothing.
macro_rules! vectorised {
    ($(#[$doc:meta])* $name:ident { $($arg:ident: $type:ty),* $(,)? } $body:block) => {
        $(#[$doc])*
        struct $name<'a> {
            $($arg: $type),*
        }

        impl pulp::WithSimd for $name<'_> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, _: S) {
                let Self { $($arg),* } = self;
                $body
            }
        }
    };
}

pub(crate) use vectorised;
