//! Page tokens: how a compressed 1 MiB block of guest memory is stored (format specification, section 5).
//!
//! `codec/tokens.py` is the readable fallback and says what each function means.

use crate::xpress;

pub const PAGE: usize = 4096;
pub const BLOCK: usize = 0x100000;
const TOKEN_END: u32 = 0xFFFF_FFFF;
const TOKEN_FILL: u32 = 0xFFFF_FFFE;
const TOKEN_FILL_MANY: u32 = 0xFFFF_FFFD;
const TOKEN_PART: u32 = 0xFFFF_FFFC;

pub const PLAIN: u32 = 0;
pub const FILL: u32 = 1;
pub const XPRESS: u32 = 2;

pub const MORE: u32 = 0;
pub const END: u32 = 1;
pub const BAD: u32 = 2;

/// What one token puts out: output position, output size, kind, payload position, payload size.
pub type Segment = [u32; 5];
pub const SEGMENT_SIZE: usize = 20;

pub struct Scan {
    pub segments: Vec<Segment>,
    pub position: usize,
    pub produced: usize,
    pub state: u32,
    pub reason: String,
}

fn word(window: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([window[at], window[at + 1], window[at + 2], window[at + 3]])
}

/// Indexes the tokens from `position` on; see the fallback.
pub fn scan(window: &[u8], base: usize, position: usize, produced: usize, size: usize, stop: usize) -> Scan {
    let mut scan = Scan { segments: Vec::with_capacity(256), position, produced, state: MORE, reason: String::new() };
    let limit = base.saturating_add(window.len());
    if position < base {
        scan.state = BAD;
        scan.reason = "the window begins behind the position".into();
        return scan;
    }
    while scan.produced <= stop {
        match step(window, base, &mut scan, size, limit) {
            Ok(true) => {}
            Ok(false) => break,
            Err((state, reason)) => {
                (scan.state, scan.reason) = (state, reason);
                break;
            }
        }
    }
    scan
}

/// One token. `Ok(false)`: it is not in the window; `Err`: the walk is over.
fn step(window: &[u8], base: usize, scan: &mut Scan, size: usize, limit: usize) -> Result<bool, (u32, String)> {
    let (position, produced) = (scan.position, scan.produced);
    let bad = |reason: String| Err((BAD, reason));
    if position == size && produced == BLOCK {
        return Err((END, String::new())); // tolerated: the output is complete, only END is missing
    }
    if position + 4 > size {
        return bad(format!("the tokens end after {produced:#x} bytes of output"));
    }
    if position + 4 > limit {
        return Ok(false);
    }
    let token = word(window, position - base);
    let (mut payload, mut stored, mut kind, mut out_size) = (position + 4, token as usize, XPRESS, PAGE);
    if token == TOKEN_END {
        return if produced == BLOCK {
            Err((END, String::new()))
        } else {
            bad(format!("the tokens make {produced:#x} bytes instead of 0x100000"))
        };
    }
    if token == TOKEN_PART {
        if position + 12 > size {
            return bad("the block ends inside a token".into());
        }
        if position + 12 > limit {
            return Ok(false);
        }
        out_size = word(window, position + 4 - base) as usize;
        stored = word(window, position + 8 - base) as usize;
        payload = position + 12;
        if out_size == stored {
            kind = PLAIN;
        }
        if out_size == 0 || out_size >= PAGE {
            return bad(format!("partial page of {out_size:#x} bytes"));
        }
        if produced % PAGE + out_size > PAGE {
            return bad("partial page leaves its page".into());
        }
    } else {
        if produced % PAGE != 0 {
            return bad(format!("token {token:#x} inside a page"));
        }
        match token {
            TOKEN_FILL | TOKEN_FILL_MANY => (stored, kind) = (8, FILL),
            4096 => kind = PLAIN,
            1..=4095 => {}
            _ => return bad(format!("unknown token {token:#x}")),
        }
    }
    let mut following = payload + stored;
    if token == TOKEN_FILL_MANY {
        following += 4;
        if following > size {
            return bad("the block ends inside a token".into());
        }
        if following > limit {
            return Ok(false);
        }
        let pages = word(window, payload + 8 - base) as usize;
        out_size = pages * PAGE;
        if pages == 0 {
            return bad("fill of no pages".into());
        }
    }
    if following > size {
        return bad("the block ends inside a token".into());
    }
    if produced + out_size > BLOCK {
        return bad(format!("the tokens make more than 0x100000 bytes (token {token:#x})"));
    }
    scan.segments.push([produced as u32, out_size as u32, kind, payload as u32, stored as u32]);
    scan.produced += out_size;
    scan.position = following;
    Ok(true)
}

/// Decodes output `start..start + out.len()`; returns what could not be decoded (position, size, reason).
pub fn decode(
    data: &[u8],
    base: usize,
    segments: impl Iterator<Item = Segment>,
    start: usize,
    out: &mut [u8],
) -> Vec<(usize, usize, String)> {
    let mut bad = Vec::new();
    let end = start + out.len();
    for [at, out_size, kind, payload, stored] in segments {
        let (at, out_size, payload, stored) = (at as usize, out_size as usize, payload as usize, stored as usize);
        let (low, high) = (at.max(start), (at + out_size).min(end));
        if low >= high {
            continue;
        }
        let target = &mut out[low - start..high - start];
        let piece = payload.checked_sub(base).and_then(|from| data.get(from..from + stored));
        let refusal = match (piece, kind) {
            (None, _) => Some("the payload is not at hand".to_string()),
            (Some(piece), FILL) => fill(piece, low - at, target),
            (Some(piece), XPRESS) => unpack(piece, out_size, low - at, target),
            (Some(piece), _) => match piece.get(low - at..high - at) {
                Some(part) => {
                    target.copy_from_slice(part);
                    None
                }
                None => Some("the payload is not at hand".to_string()),
            },
        };
        if let Some(reason) = refusal {
            bad.push((at, out_size, reason));
        }
    }
    bad
}

fn fill(pattern: &[u8], skip: usize, target: &mut [u8]) -> Option<String> {
    if pattern.len() != 8 {
        return Some("the payload is not at hand".to_string());
    }
    if pattern.iter().all(|byte| *byte == pattern[0]) {
        target.fill(pattern[0]);
    } else {
        for (index, byte) in target.iter_mut().enumerate() {
            *byte = pattern[(skip + index) % 8];
        }
    }
    None
}

fn unpack(piece: &[u8], out_size: usize, skip: usize, target: &mut [u8]) -> Option<String> {
    if target.len() == out_size {
        let refusal = xpress::decode(piece, target).err()?;
        target.fill(0);
        return Some(refusal.message);
    }
    if out_size > PAGE {
        return Some("a segment is larger than a page".to_string());
    }
    let mut page = [0; PAGE];
    if let Err(refusal) = xpress::decode(piece, &mut page[..out_size]) {
        return Some(refusal.message);
    }
    target.copy_from_slice(&page[skip..skip + target.len()]);
    None
}

/// The token stream of a block of whole pages.
pub fn encode_block(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() / 2);
    let mut run: Option<(&[u8], u32)> = None;
    for page in data.chunks_exact(PAGE) {
        let pattern = &page[..8];
        let uniform = page.chunks_exact(8).all(|part| part == pattern);
        match run {
            Some((old, pages)) if uniform && old == pattern => {
                run = Some((old, pages + 1));
                continue;
            }
            Some((old, pages)) => put_fill(&mut out, old, pages),
            None => {}
        }
        run = uniform.then_some((pattern, 1));
        if uniform {
            continue;
        }
        let packed = xpress::encode(page);
        let stored = if packed.len() < PAGE { &packed } else { page };
        out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        out.extend_from_slice(stored);
    }
    if let Some((pattern, pages)) = run {
        put_fill(&mut out, pattern, pages);
    }
    out.extend_from_slice(&TOKEN_END.to_le_bytes());
    out
}

fn put_fill(out: &mut Vec<u8>, pattern: &[u8], pages: u32) {
    let token = if pages == 1 { TOKEN_FILL } else { TOKEN_FILL_MANY };
    out.extend_from_slice(&token.to_le_bytes());
    out.extend_from_slice(pattern);
    if pages > 1 {
        out.extend_from_slice(&pages.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that XPRESS makes smaller, one that it does not, and uniform ones.
    fn block() -> Vec<u8> {
        let mut data = vec![0u8; 4 * PAGE];
        for (at, byte) in data[..PAGE].iter_mut().enumerate() {
            *byte = (at / 64) as u8;
        }
        let mut state = 1u32;
        for byte in &mut data[PAGE..2 * PAGE] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        data[2 * PAGE..].fill(0xCC);
        data.resize(BLOCK, 0);
        data
    }

    fn scanned(packed: &[u8]) -> Scan {
        scan(packed, 0, 0, 0, packed.len(), BLOCK)
    }

    fn decoded(packed: &[u8], segments: &[Segment], start: usize, size: usize) -> Vec<u8> {
        let mut out = vec![0; size];
        let bad = decode(packed, 0, segments.iter().copied(), start, &mut out);
        assert!(bad.is_empty(), "{bad:?}");
        out
    }

    #[test]
    fn a_block_round_trips_whole_and_page_by_page() {
        let data = block();
        let packed = encode_block(&data);
        let found = scanned(&packed);
        assert_eq!((found.state, found.produced, found.reason.as_str()), (END, BLOCK, ""));
        let kinds: Vec<u32> = found.segments.iter().map(|segment| segment[2]).collect();
        assert_eq!(kinds, [XPRESS, PLAIN, FILL, FILL]);
        assert_eq!(decoded(&packed, &found.segments, 0, BLOCK), data);
        for start in [0, PAGE, 2 * PAGE + 3, BLOCK - PAGE] {
            assert_eq!(decoded(&packed, &found.segments, start, PAGE), data[start..start + PAGE]);
        }
    }

    #[test]
    fn a_scan_goes_on_where_a_window_ended() {
        let packed = encode_block(&block());
        let whole = scanned(&packed);
        let cut = packed.len() / 2;
        let first = scan(&packed[..cut], 0, 0, 0, packed.len(), BLOCK);
        assert_eq!(first.state, MORE);
        let rest = scan(&packed[first.position..], first.position, first.position, first.produced, packed.len(), BLOCK);
        assert_eq!(rest.state, END);
        assert_eq!([first.segments, rest.segments].concat(), whole.segments);
    }

    #[test]
    fn tokens_that_lie_are_bad() {
        let sound = encode_block(&block());
        assert_eq!(scanned(&sound).state, END);
        let mut unknown = sound.clone();
        unknown[..4].copy_from_slice(&0x1001u32.to_le_bytes());
        let mut short = sound.clone();
        short.truncate(sound.len() - 4 - 16); // without END and the last fill
        for (packed, reason) in
            [(unknown, "unknown token 0x1001"), (short, "the tokens end after 0x4000 bytes of output")]
        {
            let found = scanned(&packed);
            assert_eq!((found.state, found.reason.as_str()), (BAD, reason));
        }
    }
}
