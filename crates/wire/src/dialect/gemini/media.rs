//! Writes pictures, sounds, videos and documents as inline data or as references.

use crate::{
    canonical::{DataUrl, File, Json, Part},
    error::{ErrorType, RequestError},
};

/// Writes a part that is not text; `path` is its place in the caller's request.
pub(super) fn write_part(json: &mut Json<'_>, part: &Part<'_>, path: &str) -> Result<(), RequestError> {
    let invalid = |field: &str, problem: &str| RequestError::invalid(format!("{path}.{field}"), problem);
    json.open_object();
    match (&*part.kind, part) {
        ("image_url", Part { image_url: Some(image), .. }) => {
            write_address(json, &image.url, "image/jpeg")
                .map_err(|problem| RequestError { error_type: ErrorType::InvalidImage, ..invalid("image_url.url", problem) })?;
        }
        ("video_url", Part { video_url: Some(video), .. }) => {
            write_address(json, &video.url, "video/mp4").map_err(|problem| invalid("video_url.url", problem))?;
        }
        ("input_audio", Part { input_audio: Some(audio), .. }) => {
            json.object_at("inlineData");
            json.string_at("mimeType", &format!("audio/{}", &*audio.format));
            json.literal_at("data", audio.data);
            json.close_object();
        }
        ("file", Part { file: Some(file), .. }) => {
            write_file(json, file).map_err(|problem| invalid("file", problem))?;
        }
        _ => return Err(invalid("type", "unknown part type, or its member is missing")),
    }
    json.close_object();
    Ok(())
}

fn write_file(json: &mut Json<'_>, file: &File<'_>) -> Result<(), &'static str> {
    if let Some(id) = file.file_id {
        json.object_at("fileData");
        json.literal_at("fileUri", id);
        json.close_object();
        return Ok(());
    }
    let address = file.file_data.as_deref().ok_or("file_data or file_id is required")?;
    write_address(json, address, "application/pdf")
}

/// Writes `inlineData` or `fileData`; `usual` is the media type when neither the URL nor its ending names one.
fn write_address(json: &mut Json<'_>, url: &str, usual: &'static str) -> Result<(), &'static str> {
    if let Some(data) = DataUrl::parse(url) {
        let data = data?;
        json.object_at("inlineData");
        json.string_at("mimeType", if data.media_type.is_empty() { usual } else { data.media_type });
        json.plain_at("data", data.data);
        json.close_object();
        return Ok(());
    }
    if !["https://", "http://", "gs://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("expected an http, https, gs or data URL");
    }
    json.object_at("fileData");
    if !knows_its_type(url) {
        json.string_at("mimeType", media_type_of(url).unwrap_or(usual));
    }
    json.string_at("fileUri", url);
    json.close_object();
    Ok(())
}

/// Uploads and videos of Google's own services, whose type it looks up itself.
fn knows_its_type(url: &str) -> bool {
    ["https://generativelanguage.googleapis.com/", "https://www.youtube.com/", "https://youtube.com/", "https://youtu.be/"]
        .iter()
        .any(|start| url.starts_with(start))
}

fn media_type_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, ending) = path.rsplit_once('.')?;
    let media_type = match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "mp4" => "video/mp4",
        "mov" => "video/quicktime",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        _ => return None,
    };
    Some(media_type)
}
