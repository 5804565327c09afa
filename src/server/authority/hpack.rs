//! Just enough of HPACK (RFC 7541) to find one value in a header block and to overwrite it where it lies.

use std::ops::Range;

use http::uri::Authority;

/// The index of `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;

/// Printable characters by the length in bits of their Huffman codes, in the order of their codes. The code is
/// canonical (RFC 7541, appendix B): lengths and order give every code. Longer codes are of bytes that no authority
/// has; a value with one of them is left alone.
const SYMBOLS: [(u32, &[u8]); 10] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
];

/// Makes the first `:authority` literal of a header block valid, if it is not.
///
/// The value is overwritten in place with one of the same length, on the wire and decoded. So every length around it
/// stays true, and the decoder's dynamic table evicts when the client's encoder thinks it does. A later reference to
/// the entry finds the valid value. What cannot be read, or cannot be mended in place, stays as it is: the decoder
/// behind this one has the last word.
pub(super) fn mend_authority(block: &mut [u8]) {
    if let Some((value, huffman)) = find_authority(block) {
        let value = &mut block[value];
        let mended = if huffman { mend_huffman(value) } else { mend_plain(value) };
        if let Some(mended) = mended {
            value.copy_from_slice(&mended);
        }
    }
}

/// Where the first `:authority` literal lies, and whether it is Huffman coded.
fn find_authority(block: &[u8]) -> Option<(Range<usize>, bool)> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        // RFC 7541, section 6: the leading bits tell the representation and how many bits its index has.
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = integer(block, &mut at, bits)?;
        if !literal {
            continue;
        }
        let ours = if index == 0 {
            let (name, huffman) = string(block, &mut at)?;
            if huffman { decode(&block[name])?.1 == b":authority" } else { &block[name] == b":authority" }
        } else {
            index == AUTHORITY
        };
        let value = string(block, &mut at)?;
        if ours {
            return Some(value);
        }
    }
    None
}

/// An integer whose first byte has `bits` bits of it (RFC 7541, section 5.1).
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let full = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & full;
    *at += 1;
    if value < full {
        return Some(value);
    }
    // Four bytes more are 28 bits: beyond any block that is looked at.
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Where a string's bytes lie, and whether they are Huffman coded (RFC 7541, section 5.2).
fn string(block: &[u8], at: &mut usize) -> Option<(Range<usize>, bool)> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let range = *at..at.checked_add(length).filter(|end| *end <= block.len())?;
    *at = range.end;
    Some((range, huffman))
}

fn is_valid(value: &[u8]) -> bool {
    Authority::try_from(value).is_ok()
}

fn is_kept(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn mend_plain(value: &[u8]) -> Option<Vec<u8>> {
    if is_valid(value) {
        return None;
    }
    let mended: Vec<u8> = value.iter().map(|&byte| if is_kept(byte) { byte } else { b'-' }).collect();
    is_valid(&mended).then_some(mended)
}

/// Each bad character becomes one whose code has the same length, so that the codes around it stay where they are.
fn mend_huffman(value: &[u8]) -> Option<Vec<u8>> {
    let (codes, text) = decode(value)?;
    if is_valid(&text) {
        return None;
    }
    let mut mended = value.to_vec();
    let mut bit = 0;
    for (length, byte) in codes {
        if !is_kept(byte) {
            let code = code_of(match length {
                6 => b'-',
                7 => b'x',
                8 => b'X',
                10 => b'!',
                11 => b'+',
                13 => b'~',
                _ => return None,
            })?;
            for offset in 0..length {
                set_bit(&mut mended, bit + offset as usize, code >> (length - 1 - offset) & 1 == 1);
            }
        }
        bit += length as usize;
    }
    decode(&mended).is_some_and(|(_, text)| is_valid(&text)).then_some(mended)
}

/// The characters of a Huffman coded string, each with the length of its code, and the text they make.
#[allow(clippy::type_complexity)]
fn decode(value: &[u8]) -> Option<(Vec<(u32, u8)>, Vec<u8>)> {
    let (mut codes, mut text) = (Vec::new(), Vec::new());
    let total = value.len() * 8;
    let mut bit = 0;
    while let Some((length, byte)) = symbol_at(value, bit) {
        codes.push((length, byte));
        text.push(byte);
        bit += length as usize;
    }
    // What is left is padding: fewer than 8 bits, all ones (RFC 7541, section 5.2).
    let padding = total - bit < 8 && (bit..total).all(|bit| get_bit(value, bit) == 1);
    padding.then_some((codes, text))
}

fn symbol_at(value: &[u8], bit: usize) -> Option<(u32, u8)> {
    let (mut first, mut previous, mut code, mut read) = (0_u32, 0, 0_u32, 0);
    for (length, symbols) in SYMBOLS {
        first <<= length - previous;
        previous = length;
        while read < length {
            let at = bit + read as usize;
            if at >= value.len() * 8 {
                return None;
            }
            code = code << 1 | get_bit(value, at);
            read += 1;
        }
        if let Some(&byte) = code.checked_sub(first).and_then(|offset| symbols.get(offset as usize)) {
            return Some((length, byte));
        }
        first += symbols.len() as u32;
    }
    None
}

fn code_of(wanted: u8) -> Option<u32> {
    let (mut first, mut previous) = (0_u32, 0);
    for (length, symbols) in SYMBOLS {
        first <<= length - previous;
        previous = length;
        if let Some(offset) = symbols.iter().position(|&byte| byte == wanted) {
            return Some(first + offset as u32);
        }
        first += symbols.len() as u32;
    }
    None
}

fn get_bit(bytes: &[u8], bit: usize) -> u32 {
    u32::from(bytes[bit / 8] >> (7 - bit % 8) & 1)
}

fn set_bit(bytes: &mut [u8], bit: usize, on: bool) {
    let mask = 1 << (7 - bit % 8);
    if on { bytes[bit / 8] |= mask } else { bytes[bit / 8] &= !mask }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Huffman codes a text of the characters in [`SYMBOLS`].
    pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
        let bits: String = text
            .iter()
            .map(|&byte| {
                let length = SYMBOLS.iter().find(|(_, symbols)| symbols.contains(&byte)).unwrap().0;
                format!("{:0width$b}", code_of(byte).unwrap(), width = length as usize)
            })
            .collect();
        let padded = format!("{bits:1<width$}", width = bits.len().div_ceil(8) * 8);
        (0..padded.len()).step_by(8).map(|at| u8::from_str_radix(&padded[at..at + 8], 2).unwrap()).collect()
    }

    /// A literal with incremental indexing and the static name `:authority`.
    pub(crate) fn literal(value: &[u8], huffman: bool) -> Vec<u8> {
        let coded = if huffman { encode(value) } else { value.to_vec() };
        assert!(coded.len() < 127, "one byte of length is enough for a test");
        [&[0x41, coded.len() as u8 | if huffman { 0x80 } else { 0 }], &coded[..]].concat()
    }

    fn value_of(block: &[u8]) -> Vec<u8> {
        let (range, huffman) = find_authority(block).unwrap();
        if huffman { decode(&block[range]).unwrap().1 } else { block[range].to_vec() }
    }

    #[test]
    fn the_huffman_code_is_that_of_the_rfc() {
        // RFC 7541, appendix C.4.1 and C.6.1.
        assert_eq!(encode(b"www.example.com"), b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff");
        assert_eq!(
            encode(b"https://www.example.com"),
            b"\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3"
        );
    }

    #[test]
    fn a_path_becomes_a_valid_authority_of_the_same_length() {
        for (path, mended) in [
            (&b"/var/lib/kubelet/plugins/a/csi.sock"[..], &b"-var-lib-kubelet-plugins-a-csi.sock"[..]),
            (b"%2Frun%2Fcsi.sock", b"-2Frun-2Fcsi.sock"),
        ] {
            for huffman in [false, true] {
                let mut block = literal(path, huffman);
                let length = block.len();
                mend_authority(&mut block);
                assert_eq!(block.len(), length);
                let value = value_of(&block);
                assert_eq!(value, mended);
            }
        }
    }

    #[test]
    fn an_authority_is_found_behind_other_headers_and_by_its_name() {
        let before = [0x3f, 0xe1, 0x1f, 0x83, 0x86, 0x04, 0x02, b'/', b'a'];
        for name in [&b"\x01"[..], b"\x11", b"\x40\x0a:authority"] {
            let mut block = [&before, name, b"\x04/a/b"].concat();
            mend_authority(&mut block);
            assert!(block.starts_with(&before), "the path is not touched");
            assert!(block.ends_with(b"-a-b"), "{name:?}");
        }
        let mut block =
            [&[0x40, 0x80 | encode(b":authority").len() as u8], &encode(b":authority")[..], b"\x02/a"].concat();
        mend_authority(&mut block);
        assert!(block.ends_with(b"-a"));
    }

    proptest! {
        #[test]
        fn a_valid_authority_is_never_touched(value in "[a-zA-Z0-9._~-]{1,40}(:[0-9]{1,5})?", huffman: bool) {
            let before = literal(value.as_bytes(), huffman);
            let mut block = before.clone();
            mend_authority(&mut block);
            prop_assert_eq!(before, block);
        }

        #[test]
        fn any_path_is_mended_and_keeps_its_length(value in "/[a-zA-Z0-9/._%:@ ~=+-]{0,60}", huffman: bool) {
            let mut block = literal(value.as_bytes(), huffman);
            let length = block.len();
            mend_authority(&mut block);
            prop_assert_eq!(block.len(), length);
            let mended = value_of(&block);
            prop_assert_eq!(mended.len(), value.len());
            prop_assert!(is_valid(&mended), "{:?}", mended);
        }

        #[test]
        fn any_bytes_are_survived(mut block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let length = block.len();
            mend_authority(&mut block);
            prop_assert_eq!(block.len(), length);
        }
    }
}
