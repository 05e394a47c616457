//! The bytes that are signed: RFC 8785, so that one content has one form.

use serde::Serialize;
use serde_json::Value;

/// Above it, a JSON number stands for several integers (RFC 8785, 3.2.2.3).
const LARGEST_INTEGER: u64 = (1 << 53) - 1;

/// # Errors
/// In words, if the value has no canonical form: a number that is not finite, or an integer
/// beyond 2⁵³ − 1.
pub(super) fn canonical(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let value = serde_json::to_value(value).map_err(|e| e.to_string())?;
    exact(&value)?;
    serde_json_canonicalizer::to_vec(&value).map_err(|e| e.to_string())
}

fn exact(value: &Value) -> Result<(), String> {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(n) if n > LARGEST_INTEGER => Err(format!(
                "the number {n} is beyond {LARGEST_INTEGER}, the largest that JSON keeps exactly"
            )),
            _ => Ok(()),
        },
        Value::Array(values) => values.iter().try_for_each(exact),
        Value::Object(map) => map.values().try_for_each(exact),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(json: &str) -> String {
        let value: Value = serde_json::from_str(json).unwrap();
        String::from_utf8(canonical(&value).unwrap()).unwrap()
    }

    /// The examples of RFC 8785: 3.2.2 (forms), 3.2.3 (order by UTF-16) and appendix B (numbers).
    #[test]
    fn forms_are_those_of_the_standard() {
        let forms = r#"{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"#;
        assert_eq!(
            form(forms),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        let order =
            r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
        assert_eq!(
            form(order),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
        for (bits, text) in [
            (0x0000_0000_0000_0001u64, "5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x8000_0000_0000_0000, "0"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            let value = canonical(&f64::from_bits(bits)).unwrap();
            assert_eq!(String::from_utf8(value).unwrap(), text);
        }
        assert_eq!(form("[1.0, 1e2, -0.0]"), "[1,100,0]");
    }

    #[test]
    fn what_json_does_not_keep_is_refused() {
        assert!(canonical(&(1u64 << 53)).is_err());
        assert_eq!(canonical(&((1u64 << 53) - 1)).unwrap(), b"9007199254740991");
    }
}
