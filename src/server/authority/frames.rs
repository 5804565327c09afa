//! The frames of an HTTP/2 connection, followed just closely enough to find its header blocks.

use std::ops::Range;

use super::hpack;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The longest frame a client may send: nothing larger is offered in our SETTINGS (RFC 9113, section 4.2).
const FRAME_LIMIT: usize = 16 * 1024;

/// The most bytes that are held back to wait for the rest of a header block. Larger than any list of headers that is
/// accepted; a block beyond it goes on unread.
const BLOCK_LIMIT: usize = 2 * FRAME_LIMIT;

/// Where the bytes that come next lie in the stream of frames.
#[derive(Debug)]
pub(super) enum Frames {
    /// So many bytes of the connection preface came.
    Preface(usize),
    /// A frame starts after this many bytes that nobody looks at.
    Skip(usize),
    /// This is not HTTP/2 as we know it: nothing is looked at any more.
    Lost,
}

/// What lies at the start of the bytes that came.
enum Next {
    /// A whole header block in these frames, and where its fragments are.
    Block { end: usize, fragments: Vec<Range<usize>> },
    /// A frame of no interest: so many bytes of it.
    Other(usize),
    /// More bytes are needed.
    More,
}

impl Frames {
    /// Follows the stream over `bytes`, mends what header blocks lie in it whole, and answers how many of the bytes
    /// may go on. The rest is the start of a header block (or of a frame's header): call again with it and more.
    pub(super) fn advance(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = &mut bytes[at..];
            if rest.is_empty() {
                return at;
            }
            match self {
                Self::Lost => return bytes.len(),
                Self::Preface(seen) => {
                    let here = rest.len().min(PREFACE.len() - *seen);
                    if rest[..here] != PREFACE[*seen..*seen + here] {
                        *self = Self::Lost;
                        return bytes.len();
                    }
                    *seen += here;
                    at += here;
                    if *seen == PREFACE.len() {
                        *self = Self::Skip(0);
                    }
                }
                Self::Skip(left) if *left > 0 => {
                    let here = rest.len().min(*left);
                    *left -= here;
                    at += here;
                }
                Self::Skip(left) => match next(rest) {
                    Next::Other(length) => *left = length,
                    Next::Block { end, fragments } => {
                        mend(rest, &fragments);
                        at += end;
                    }
                    Next::More => return at,
                },
            }
        }
    }
}

fn next(bytes: &[u8]) -> Next {
    let (mut at, mut fragments) = (0, Vec::new());
    loop {
        let Some(header) = bytes.get(at..at + FRAME_HEADER) else { return Next::More };
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let (kind, flags) = (header[3], header[4]);
        let expected = if at == 0 { HEADERS } else { CONTINUATION };
        let end = at + FRAME_HEADER + length;
        if kind != expected || length > FRAME_LIMIT || end > BLOCK_LIMIT {
            // What was held of the block goes on with this frame.
            return Next::Other(end);
        }
        if bytes.len() < end {
            return Next::More;
        }
        let payload = at + FRAME_HEADER..end;
        match fragment(bytes, payload, if at == 0 { flags } else { 0 }) {
            Some(fragment) => fragments.push(fragment),
            None => return Next::Other(end),
        }
        if flags & END_HEADERS != 0 {
            return Next::Block { end, fragments };
        }
        at = end;
    }
}

/// The part of a frame's payload that belongs to the header block: without padding and priority (RFC 9113, 6.2).
fn fragment(bytes: &[u8], payload: Range<usize>, flags: u8) -> Option<Range<usize>> {
    let (mut start, mut end) = (payload.start, payload.end);
    if flags & PADDED != 0 {
        let padding = usize::from(*bytes[..end].get(start)?);
        start += 1;
        end = end.checked_sub(padding)?;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    (start <= end).then_some(start..end)
}

fn mend(bytes: &mut [u8], fragments: &[Range<usize>]) {
    if let [only] = fragments {
        return hpack::mend_authority(&mut bytes[only.clone()]);
    }
    let mut block: Vec<u8> = fragments.iter().flat_map(|range| bytes[range.clone()].iter().copied()).collect();
    hpack::mend_authority(&mut block);
    let mut rest = &block[..];
    for range in fragments {
        let (here, after) = rest.split_at(range.len());
        bytes[range.clone()].copy_from_slice(here);
        rest = after;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::authority::hpack::tests::literal;

    pub(crate) fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What comes out when the bytes come in pieces of these sizes.
    fn pass(bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
        let (mut frames, mut out, mut held) = (Frames::Preface(0), Vec::new(), Vec::new());
        let (mut at, mut sizes) = (0, sizes.iter().cycle());
        while at < bytes.len() {
            let end = bytes.len().min(at + sizes.next().unwrap());
            held.extend_from_slice(&bytes[at..end]);
            let whole = frames.advance(&mut held);
            out.extend(held.drain(..whole));
            at = end;
        }
        [out, held].concat()
    }

    fn stream(blocks: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE, &frame(4, 0, &[]), &blocks.concat(), &frame(0, 1, b"/data/stays")].concat()
    }

    #[test]
    fn a_block_with_padding_priority_and_continuations_is_mended() {
        let value = literal(b"/run/csi.sock", false);
        let padded = [&[3, 0, 0, 0, 0, 16], &value[..], &[0; 3]].concat();
        let whole = frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &padded);
        let parts = [frame(HEADERS, 0, &value[..5]), frame(CONTINUATION, 0, &[]), frame(CONTINUATION, 4, &value[5..])];
        let sent = stream(&[whole, parts.concat()]);
        let received = pass(&sent, &[1]);
        assert_eq!(received.len(), sent.len());
        let text = String::from_utf8_lossy(&received).into_owned();
        assert!(text.contains("-run-csi.sock") && text.contains("/data/stays"), "{text}");
        assert!(!text.contains("/ru") && !text.contains("/csi.sock"), "{text}");
    }

    #[test]
    fn a_block_beyond_the_limit_goes_on_unread() {
        let value = literal(b"/run/csi.sock", false);
        let filler = [vec![0x04, 0x7f, 0x81, 0x7d], vec![b'a'; 16_000]].concat();
        let sent = stream(&[[
            frame(HEADERS, 0, &filler),
            frame(CONTINUATION, 0, &filler),
            frame(CONTINUATION, 0, &filler),
            frame(CONTINUATION, END_HEADERS, &value),
        ]
        .concat()]);
        assert_eq!(pass(&sent, &[4096]), sent);
    }

    #[test]
    fn what_is_not_http2_goes_through() {
        assert_eq!(pass(b"GET /metrics HTTP/1.1\r\n\r\n", &[2]), b"GET /metrics HTTP/1.1\r\n\r\n");
    }

    proptest! {
        #[test]
        fn the_pieces_in_which_bytes_come_make_no_difference(
            value in "/[a-z/]{0,30}", huffman: bool, cut in 0_usize..30, sizes in proptest::collection::vec(1_usize..40, 1..8),
        ) {
            let block = literal(value.as_bytes(), huffman);
            let cut = cut.min(block.len());
            let parts = [frame(HEADERS, 0, &block[..cut]), frame(CONTINUATION, END_HEADERS, &block[cut..])].concat();
            let sent = stream(&[parts.clone(), frame(0, 0, b"x"), frame(HEADERS, END_HEADERS, &block), parts]);
            let whole = pass(&sent, &[sent.len()]);
            prop_assert_ne!(&whole, &sent);
            prop_assert_eq!(pass(&sent, &sizes), whole);
        }

        #[test]
        fn any_bytes_keep_their_number(
            tail in proptest::collection::vec(any::<u8>(), 0..300), sizes in proptest::collection::vec(1_usize..40, 1..8),
        ) {
            let sent = [PREFACE, &tail].concat();
            prop_assert_eq!(pass(&sent, &sizes).len(), sent.len());
        }
    }
}
