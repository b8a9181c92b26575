//! Unpacks gzip and Zstandard streams and the pages of parquet files. No page may be larger than it says.

use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use flate2::bufread::GzDecoder;
use parquet::basic::Compression;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// All members of a gzip file, one after the other.
pub(super) struct Gzip<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gzip<R> {
    pub(super) fn new(from: R) -> Self {
        Self { member: Some(GzDecoder::new(from)) }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(out)?;
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            let rest = self.member.take().map(GzDecoder::into_inner);
            self.member = rest.map(another_member).transpose()?.flatten().map(GzDecoder::new);
        }
        Ok(0)
    }
}

/// The reader after a member, if another member follows. Some programs pad the last block with zeros.
fn another_member<R: BufRead>(mut rest: R) -> io::Result<Option<R>> {
    loop {
        let bytes = rest.fill_buf()?;
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        if zeros < bytes.len() {
            rest.consume(zeros);
            return Ok(Some(rest));
        }
        if zeros == 0 {
            return Ok(None);
        }
        rest.consume(zeros);
    }
}

/// All frames of a Zstandard file, one after the other.
pub(super) struct Zstd<R> {
    from: R,
    frame: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Zstd<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, frame: FrameDecoder::new(), within: false }
    }

    /// Begins the next frame with text; `false` at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.from.fill_buf()?.is_empty() {
            match self.frame.init(&mut self.from) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut (&mut self.from).take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(invalid(error)),
            }
        }
        Ok(false)
    }

    fn read_frame(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.frame.can_collect() < out.len() && !self.frame.is_finished() {
            let wanted = BlockDecodingStrategy::UptoBytes(out.len() - self.frame.can_collect());
            self.frame.decode_blocks(&mut self.from, wanted).map_err(invalid)?;
        }
        let count = self.frame.read(out)?;
        if count == 0 && self.frame.is_finished() {
            let (expected, found) =
                (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum());
            if expected.is_some() && expected != found {
                return Err(invalid("its checksum is another"));
            }
        }
        Ok(count)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within {
                self.within = guard(|| self.next_frame())?;
            }
            if !self.within || out.is_empty() {
                return Ok(0);
            }
            let count = guard(|| self.read_frame(out))?;
            if count > 0 {
                return Ok(count);
            }
            self.within = false;
        }
    }
}

fn invalid(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

/// Runs a library on bytes that may be hostile and turns a panic into an error.
fn guard<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(invalid("it contradicts itself")))
}

/// Whether [`page`] can unpack this.
pub(super) fn can_unpack(codec: Compression) -> bool {
    matches!(
        codec,
        Compression::UNCOMPRESSED
            | Compression::SNAPPY
            | Compression::GZIP(_)
            | Compression::ZSTD(_)
            | Compression::BROTLI(_)
            | Compression::LZ4
            | Compression::LZ4_RAW
    )
}

/// Unpacks a page that should have `size` bytes. Never holds more than that, whatever the bytes unpack to.
///
/// # Errors
/// If the bytes are not such a page.
pub(super) fn page(codec: Compression, packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let found = guard(|| match codec {
        Compression::UNCOMPRESSED => Ok(packed.to_vec()),
        Compression::SNAPPY => snappy(packed, size),
        Compression::GZIP(_) => at_most(size, Gzip::new(packed)),
        Compression::ZSTD(_) => at_most(size, Zstd::new(packed)),
        Compression::BROTLI(_) => at_most(size, brotli_decompressor::Decompressor::new(packed, 4096)),
        Compression::LZ4_RAW => lz4_block(packed, size),
        // Hadoop's blocks are the standard. Older writers put a frame or a bare block under the same name.
        Compression::LZ4 => lz4_hadoop(packed, size)
            .or_else(|_| at_most(size, lz4_flex::frame::FrameDecoder::new(packed)))
            .or_else(|_| lz4_block(packed, size)),
        _ => Err(invalid(format!("{codec:?} is not unpacked here"))),
    })?;
    if found.len() != size {
        return Err(invalid(format!("a page unpacks to {} bytes and not to {size}", found.len())));
    }
    Ok(found)
}

/// Reading one byte more than `size` shows whether there is too much.
fn at_most(size: usize, from: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    from.take(size as u64 + 1).read_to_end(&mut out)?;
    if out.len() == size { Ok(out) } else { Err(invalid(format!("a page is not of {size} bytes"))) }
}

/// Snappy's longest copy turns 3 bytes into 64, which bounds the unpacked size.
fn snappy(packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut out = buffer(packed, size, 22)?;
    if snap::raw::decompress_len(packed).map_err(invalid)? != size {
        return Err(invalid(format!("a page is not of {size} bytes")));
    }
    snap::raw::Decoder::new().decompress(packed, &mut out).map_err(invalid)?;
    Ok(out)
}

/// A byte of LZ4 stands for at most 255 bytes.
fn lz4_block(packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut out = buffer(packed, size, 255)?;
    let found = lz4_flex::block::decompress_into(packed, &mut out).map_err(invalid)?;
    out.truncate(found);
    Ok(out)
}

/// Blocks, each after its unpacked size and its packed size, both big-endian.
fn lz4_hadoop(mut packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((head, rest)) = packed.split_first_chunk::<8>() {
        let [unpacked, here] = [0, 4]
            .map(|at| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize);
        let (Some(block), true) = (rest.get(..here), unpacked <= size - out.len()) else {
            return Err(invalid("no block of Hadoop's"));
        };
        let block = lz4_block(block, unpacked)?;
        if block.len() != unpacked {
            return Err(invalid("no block of Hadoop's"));
        }
        out.extend(block);
        packed = &rest[here..];
    }
    if packed.is_empty() { Ok(out) } else { Err(invalid("no block of Hadoop's")) }
}

/// A buffer of `size` bytes, if `packed` bytes can unpack to that many. A page's own claim is not trusted.
fn buffer(packed: &[u8], size: usize, most: usize) -> io::Result<Vec<u8>> {
    if size > packed.len().saturating_mul(most).saturating_add(64) {
        return Err(invalid(format!("a page claims {size} bytes in {}", packed.len())));
    }
    Ok(vec![0; size])
}
