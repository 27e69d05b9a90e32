//! Whatever the bytes are: reading an image ends, and what the checker passes is read without an error.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use quorate_core::checkpoint::bolt::{Bucket, Image, Item};
use quorate_core::checkpoint::{ImageError, load, write_image};

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    seal(&mut bytes);
    for bytes in [Bytes::copy_from_slice(input), Bytes::from(bytes)] {
        let Ok(image) = Image::open(bytes.clone()) else {
            continue;
        };
        let walked = walk(&image.root(), 0);
        assert!(
            walked.is_ok() || image.check().is_err(),
            "the checker passes what the reader refuses"
        );
        let Ok(loaded) = load(bytes) else { continue };
        let Ok(rows) = loaded.rows.collect::<Result<Vec<_>, _>>() else {
            continue;
        };
        let file = quorate_core::checkpoint::bolt::MemoryFile::default();
        let (file, _) =
            write_image(file, &loaded.contents, rows.iter().cloned()).expect("it was read");
        let again = load(file.0.into()).expect("we wrote it");
        let rows_again: Vec<_> = again.rows.collect::<Result<_, _>>().expect("we wrote it");
        assert_eq!(rows, rows_again);
    }
});

fn walk(bucket: &Bucket, depth: usize) -> Result<(), ImageError> {
    for item in bucket.items()? {
        if let Item::Bucket(inner) = item?
            && depth < 3
        {
            walk(&inner, depth + 1)?;
        }
    }
    Ok(())
}

/// Right checksums on the meta pages, so that the fuzzer gets beyond them.
fn seal(bytes: &mut [u8]) {
    for page in [0, 4096] {
        let Some(meta) = bytes.get_mut(page + 16..page + 80) else {
            continue;
        };
        let sum = meta[..56]
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        meta[56..].copy_from_slice(&sum.to_le_bytes());
    }
}
