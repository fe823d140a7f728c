//! Writes pictures and documents as blocks with a source. Everything here writes the members of an open block and leaves it
//! open, since a cache marker may follow; the errors say what is wrong with the address.

use base64::Engine as _;

use crate::canonical::{DataUrl, File, Json};

/// A file: stored at the upstream, inline, or by address.
pub(super) fn write_file(json: &mut Json<'_>, file: &File<'_>) -> Result<(), &'static str> {
    if let Some(id) = file.file_id {
        json.string_at("type", "document");
        json.object_at("source");
        json.string_at("type", "file");
        json.literal_at("file_id", id);
        json.close_object();
    } else {
        let data = file.file_data.as_deref().ok_or("file_data or file_id is required")?;
        write_document(json, data)?;
    }
    if let Some(filename) = file.filename {
        json.literal_at("title", filename);
    }
    Ok(())
}

/// An image, or a document that a client sent as one, as a block with its source.
pub(super) fn write_image(json: &mut Json<'_>, url: &str) -> Result<(), &'static str> {
    let Some(data) = DataUrl::parse(url) else {
        require_http(url)?;
        write_url_source(json, "image", url);
        return Ok(());
    };
    let data = data?;
    match data.media_type {
        "application/pdf" => write_base64_source(json, "document", data.media_type, data.data),
        // A common misspelling that the API refuses.
        "image/jpg" => write_base64_source(json, "image", "image/jpeg", data.data),
        media_type => write_base64_source(json, "image", media_type, data.data),
    }
    Ok(())
}

fn write_document(json: &mut Json<'_>, address: &str) -> Result<(), &'static str> {
    let Some(data) = DataUrl::parse(address) else {
        require_http(address)?;
        write_url_source(json, "document", address);
        return Ok(());
    };
    let data = data?;
    match data.media_type {
        "application/pdf" => write_base64_source(json, "document", data.media_type, data.data),
        image if image.starts_with("image/") => write_base64_source(json, "image", image, data.data),
        text if text.starts_with("text/") || matches!(text, "application/json" | "application/xml") => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(data.data).map_err(|_| "the data URL does not hold base64")?;
            let text = std::str::from_utf8(&bytes).map_err(|_| "a text document must be UTF-8")?;
            json.string_at("type", "document");
            json.object_at("source");
            json.string_at("type", "text");
            json.string_at("media_type", "text/plain");
            json.string_at("data", text);
            json.close_object();
        }
        _ => return Err("this model takes PDF, text and image files"),
    }
    Ok(())
}

fn require_http(url: &str) -> Result<(), &'static str> {
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(());
    }
    Err("expected an http, https or data URL")
}

fn write_url_source(json: &mut Json<'_>, kind: &str, url: &str) {
    json.string_at("type", kind);
    json.object_at("source");
    json.string_at("type", "url");
    json.string_at("url", url);
    json.close_object();
}

fn write_base64_source(json: &mut Json<'_>, kind: &str, media_type: &str, data: &str) {
    json.string_at("type", kind);
    json.object_at("source");
    json.string_at("type", "base64");
    json.string_at("media_type", media_type);
    json.plain_at("data", data);
    json.close_object();
}
