//! Reads the files of a Debian package: `dpkg-deb` gives a tar stream, which is read here.

use super::{Error, run};
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::Stdio;

/// What is done with a file: its path without `./` in front, and its bytes.
pub type Visit<'v> = dyn FnMut(&str, &mut dyn Read) -> Result<(), Error> + 'v;

/// Goes through the regular files of the package, in its order.
pub fn files(package: &Path, visit: &mut Visit<'_>) -> Result<(), Error> {
    let name = "dpkg-deb";
    let mut child = run::command(name)
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| run::cannot_start(name, &error))?;
    let read = match child.stdout.take() {
        Some(pipe) => tar(&mut BufReader::with_capacity(1 << 16, pipe), visit),
        None => Ok(()),
    };
    // If reading ended early, the pipe is closed now and the child ends.
    let out = child
        .wait_with_output()
        .map_err(|error| run::cannot_start(name, &error))?;
    read?;
    match out.status.success() {
        true => Ok(()),
        false => Err(run::failed(name, &out.stderr)),
    }
}

/// Goes through the regular files of a tar stream: the POSIX format with the long names of GNU and
/// of pax.
fn tar(stream: &mut dyn Read, visit: &mut Visit<'_>) -> Result<(), Error> {
    let damaged = |what: &str| Error::Content(format!("the package's archive: {what}"));
    let mut long_name: Option<String> = None;
    loop {
        let mut header = [0; 512];
        stream
            .read_exact(&mut header)
            .map_err(|error| damaged(&error.to_string()))?;
        if header.iter().all(|&byte| byte == 0) {
            // A second empty block and padding follow.
            let rest = std::io::copy(stream, &mut std::io::sink());
            return rest.map(drop).map_err(|error| damaged(&error.to_string()));
        }
        let size = octal(&header[124..136]).ok_or_else(|| damaged("a size"))?;
        let padded = size.div_ceil(512).saturating_mul(512);
        let mut body = stream.take(padded);
        let kind = header[156];
        match kind {
            b'L' | b'x' => {
                // Names fit in this; more is damage.
                let mut text = Vec::new();
                let got = (&mut body).take(size.min(1 << 16)).read_to_end(&mut text);
                got.map_err(|error| damaged(&error.to_string()))?;
                long_name = match kind {
                    b'L' => Some(string(&text)),
                    _ => pax_path(&text).or(long_name),
                };
            }
            _ => {
                let prefix = match &header[257..262] == b"ustar" && header[345] != 0 {
                    // GNU's own format has other things at the place of the prefix.
                    true if header[263] == b'0' => string(&header[345..500]) + "/",
                    _ => String::new(),
                };
                let name = long_name
                    .take()
                    .unwrap_or_else(|| prefix + &string(&header[..100]));
                if matches!(kind, b'0' | 0) {
                    let name = name.strip_prefix("./").unwrap_or(&name);
                    visit(name, &mut (&mut body).take(size))?;
                }
            }
        }
        let rest = std::io::copy(&mut body, &mut std::io::sink());
        rest.map_err(|error| damaged(&error.to_string()))?;
        if body.limit() != 0 {
            return Err(damaged("it ends too early"));
        }
    }
}

/// An octal number, or GNU's binary form for large ones.
fn octal(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let low = field.last_chunk::<8>()?;
        return Some(u64::from_be_bytes(*low));
    }
    let text = string(field);
    u64::from_str_radix(text.trim(), 8).ok()
}

/// Text up to the first zero byte.
fn string(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// The path in an extended header: lines of `LENGTH KEY=VALUE`.
fn pax_path(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text).into_owned();
    text.lines()
        .find_map(|line| Some(line.split_once(' ')?.1.strip_prefix("path=")?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn read(stream: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut found = Vec::new();
        tar(&mut &*stream, &mut |name, body| {
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes).expect("memory");
            found.push((name.to_string(), bytes));
            Ok(())
        })?;
        Ok(found)
    }

    fn archive(format: &str) -> (String, Vec<u8>) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("metaphrase-tar-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        // The plain format holds names of 100 bytes, and directories of 155 in front of them.
        let length = if format == "ustar" { 90 } else { 120 };
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(length));
        std::fs::create_dir_all(dir.join("d".repeat(90))).expect("a directory");
        std::fs::write(dir.join(&long), vec![7; 1000]).expect("a file");
        std::fs::write(dir.join("empty"), "").expect("a file");
        std::os::unix::fs::symlink("empty", dir.join("link")).expect("a link");
        let out = Command::new("tar")
            .args(["--format", format, "--sort=name", "-C"])
            .arg(&dir)
            .args(["-c", "."])
            .output()
            .expect("tar");
        assert!(out.status.success());
        std::fs::remove_dir_all(&dir).expect("it was there");
        (long, out.stdout)
    }

    #[test]
    fn long_names_come_whole_in_each_format() {
        for format in ["gnu", "pax", "ustar"] {
            let (long, stream) = archive(format);
            let found = read(&stream).expect("an archive");
            let names: Vec<&str> = found.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, [&*long, "empty"], "{format}");
            assert_eq!(found[0].1, vec![7; 1000]);
        }
    }

    #[test]
    fn a_truncated_stream_is_refused_wherever_it_ends() {
        let (_, stream) = archive("gnu");
        let end = stream.iter().rposition(|&b| b != 0).expect("content") + 1;
        for length in 0..end {
            assert!(read(&stream[..length]).is_err(), "{length} bytes");
        }
        let mut bad = stream.clone();
        bad[124] = b'9';
        assert!(read(&bad).is_err());
    }
}
