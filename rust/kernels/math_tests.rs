//! Tests of `math.rs`.
#![allow(clippy::disallowed_methods)]

use super::*;
use crate::isa::Portable;

#[test]
fn agrees_with_the_standard_library() {
    let one = Portable::<1>;
    for i in -2000..2000 {
        let x = f64::from(i) * 0.01 + 0.003;
        let u = x.abs() / 20.0;
        for (name, got, want) in [
            ("exp", exp(one, [x])[0], x.exp()),
            ("log", log(one, [x.abs()])[0], x.abs().ln()),
            ("log1p", log1p(one, [u])[0], u.ln_1p()),
            ("tanh", tanh(one, [x])[0], x.tanh()),
            ("sigmoid", sigmoid(one, [x])[0], 1.0 / (1.0 + (-x).exp())),
        ] {
            assert!((got - want).abs() <= 1e-15 * want.abs(), "{name}({x}): {got}, expected {want}");
        }
    }
}
