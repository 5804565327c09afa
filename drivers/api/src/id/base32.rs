//! RFC 4648 base 32 in lower case and without padding: safe in file names, labels and volume groups alike.

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The text of `bytes`: eight characters for each five bytes, fewer at the end.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits & 31) as usize]));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits) & 31) as usize]));
    }
    text
}

/// The `N` bytes whose text this is; `None` for any other text.
pub(super) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0_u8; N];
    let (mut buffer, mut bits, mut place) = (0_u32, 0, 0);
    for character in text.bytes() {
        let five = ALPHABET.iter().position(|known| *known == character)?;
        buffer = (buffer << 5 | five as u32) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(place)? = (buffer >> bits) as u8;
            place += 1;
        }
    }
    (encode(&bytes) == text).then_some(bytes)
}

/// Whether `text` is made of this alphabet alone.
pub(super) fn is_base32(text: &str) -> bool {
    text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// The text of `N` random bytes.
pub(super) fn random<const N: usize>() -> std::io::Result<String> {
    let mut bytes = [0_u8; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(encode(&bytes))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_vectors_of_the_rfc_hold() {
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(super::encode(bytes.as_bytes()), text);
        }
        assert_eq!(super::decode::<6>("mzxw6ytboi"), Some(*b"foobar"));
    }

    #[test]
    fn only_the_text_of_as_many_bytes_is_decoded() {
        // The last has a bit set that no byte has.
        for text in ["", "mzxw6ytb", "mzxw6ytboimzxw6", "mzxw6ytbo1", "mzxw6ytboj"] {
            assert_eq!(super::decode::<6>(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_eight_bytes_come_back(bytes: [u8; 8]) {
            proptest::prop_assert_eq!(super::decode(&super::encode(&bytes)), Some(bytes));
        }
    }
}
