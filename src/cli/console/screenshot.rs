//! Pictures of the guest's screen.

use metaphrase_devices::Shared;
use metaphrase_devices::vga::{Picture, Vga};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Writes what is on the screen to a PNG file.
///
/// # Errors
/// With a line that says why the file cannot be written.
pub fn write(vga: &Shared<Vga>, path: &Path) -> Result<(), String> {
    let picture = vga.lock().picture();
    encode(&picture, path).map_err(|error| format!("{}: {error}\n", path.display()))
}

fn encode(picture: &Picture, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    if picture.width == 0 || picture.height == 0 {
        return Err("the screen shows nothing".into());
    }
    let (width, height) = (picture.width.try_into()?, picture.height.try_into()?);
    let file = BufWriter::new(File::create(path)?);
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.rgb)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_reads_back() {
        let picture = Picture {
            width: 3,
            height: 2,
            rgb: (0..18).map(|n| n * 14).collect(),
        };
        let path = std::env::temp_dir().join(format!("metaphrase-{}.png", std::process::id()));
        encode(&picture, &path).unwrap();
        let decoder = png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((info.width, info.height), (3, 2));
        assert_eq!(bytes, picture.rgb);
        std::fs::remove_file(path).unwrap();
        let empty = Picture::default();
        assert!(encode(&empty, Path::new("unused.png")).is_err());
    }
}
