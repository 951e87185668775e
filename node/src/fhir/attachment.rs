//! FHIR Attachments and Binaries: large content leaves the resource and is named where it stood.
//!
//! FHIR lets a primitive have nothing but an extension. So base64 `data` that is too large for a record gives way to
//! `_data` with [`ATTACHMENT_EXTENSION`]: the hash of the content (BLAKE3, hexadecimal) and its size in bytes. A resource
//! that is read, edited and written back keeps it. What is small stays, whatever it is. Not here: keeping content, and moving it.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};
use sync_core::{
    attachment::{Attachment, CONTENT_MAX_BYTES, INLINE_MAX_BYTES, NAMED_MAX, Tree},
    id::ContentHash,
};

/// What stands for content that is kept beside its record: an extension with `hash` and `size`.
pub const ATTACHMENT_EXTENSION: &str = "https://tuyen.invalid/fhir/StructureDefinition/attachment";

/// The elements of FHIR's Attachment. Other types with an element `data` have further ones that they must have: SampledData an
/// origin, Signature a signer.
const ELEMENTS: [&str; 10] =
    ["id", "extension", "contentType", "language", "data", "url", "size", "hash", "title", "creation"];

/// Content that has left a resource.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// What names it.
    pub attachment: Attachment,
    /// The chaining values of its pieces.
    pub tree: Tree,
    /// The content.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({:?})", self.attachment)
    }
}

/// What a resource says of attachments.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What has left it.
    pub contents: Vec<Content>,
    /// What it names, and does not bring.
    pub named: Vec<Attachment>,
}

/// Why the attachments of a resource cannot be taken. It names the element, and no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// Not base64.
    #[error("{0} is not base64; encode the file anew, and write the record again")]
    NotBase64(String),
    /// Too large.
    #[error(
        "{0} is larger than {limit} MB; keep the file where it is and give its place as `url`, or make it smaller",
        limit = CONTENT_MAX_BYTES >> 20
    )]
    TooLarge(String),
    /// The extension is not as this software writes it.
    #[error(
        "the extension of {0} that stands for an attachment cannot be read; give the `data` itself, or leave it as it was read"
    )]
    Extension(String),
    /// Too many in one write.
    #[error("it brings more than {NAMED_MAX} large attachments at once; write it in several steps")]
    TooMany,
}

/// Takes large content out of a resource.
pub fn take_out(resource: &mut Value) -> Result<Found, AttachmentError> {
    let mut found = Found::default();
    walk(resource, "", &mut found)?;
    found.contents.sort_by_key(|content| content.attachment);
    found.contents.dedup_by_key(|content| content.attachment);
    if found.contents.len() > NAMED_MAX { Err(AttachmentError::TooMany) } else { Ok(found) }
}

/// Puts content back where its name stands. `give` gives the content; where it has none the name stays.
pub fn put_back<E>(
    value: &mut Value,
    give: &mut impl FnMut(&Attachment) -> Result<Option<Vec<u8>>, E>,
) -> Result<(), E> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| put_back(item, give)),
        Value::Object(object) => {
            let is_named = may_have_content(object) && !object.contains_key("data");
            // What cannot be read names nothing, and stays as it is.
            let name = is_named.then(|| name_in(object, "").ok().flatten()).flatten();
            if let Some(name) = name
                && let Some(content) = give(&name)?
            {
                put_content(object, &content);
            }
            object.values_mut().try_for_each(|value| put_back(value, give))
        }
        _ => Ok(()),
    }
}

/// In the place of its name stands the content; what else the element has stays behind it.
fn put_content(object: &mut Map<String, Value>, content: &[u8]) {
    let at = object.keys().position(|key| key == "_data").unwrap_or(object.len());
    let mut rest = object.shift_remove("_data").unwrap_or_default();
    object.shift_insert(at, "data".to_owned(), Value::String(BASE64.encode(content)));
    if let Some(extensions) = rest.get_mut("extension").and_then(Value::as_array_mut) {
        extensions.retain(|one| !is_ours(one));
        if extensions.is_empty() {
            rest.as_object_mut().map(|rest| rest.shift_remove("extension"));
        }
    }
    if rest.as_object().is_some_and(|rest| !rest.is_empty()) {
        object.shift_insert(at + 1, "_data".to_owned(), rest);
    }
}

/// How many bytes of a resource's JSON text are content that will leave it.
pub fn bytes_to_take(resource: &Value) -> usize {
    match resource {
        Value::Array(items) => items.iter().map(bytes_to_take).sum(),
        Value::Object(object) => {
            let own = data(object).filter(|data| is_large(data)).map_or(0, str::len);
            own + object.values().map(bytes_to_take).sum::<usize>()
        }
        _ => 0,
    }
}

fn walk(value: &mut Value, path: &str, found: &mut Found) -> Result<(), AttachmentError> {
    match value {
        Value::Array(items) => {
            let mut items = items.iter_mut().enumerate();
            items.try_for_each(|(at, item)| walk(item, &format!("{path}[{at}]"), found))
        }
        Value::Object(object) => {
            let path_of = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            let data_path = path_of("data");
            if let Some(text) = data(object).filter(|text| is_large(text)) {
                if let Some(content) = content(text, &data_path)? {
                    put_name(object, &content.attachment);
                    found.contents.push(content);
                }
            } else if may_have_content(object) && !object.contains_key("data") {
                found.named.extend(name_in(object, &data_path)?);
            }
            object.iter_mut().try_for_each(|(key, value)| walk(value, &path_of(key), found))
        }
        _ => Ok(()),
    }
}

/// Whether an object is a Binary, or may be an Attachment.
fn may_have_content(object: &Map<String, Value>) -> bool {
    let is_element = |key: &String| ELEMENTS.contains(&key.strip_prefix('_').unwrap_or(key));
    object.get("resourceType").is_some_and(|name| name == "Binary") || object.keys().all(is_element)
}

fn data(object: &Map<String, Value>) -> Option<&str> {
    object.get("data").and_then(Value::as_str).filter(|_| may_have_content(object))
}

/// Whether the text may stand for content that is too large for a record: base64 has four letters for three bytes.
fn is_large(text: &str) -> bool {
    text.len() as u64 / 4 * 3 > INLINE_MAX_BYTES
}

/// The content that base64 stands for; none when it is small after all. FHIR allows white space in it.
fn content(text: &str, path: &str) -> Result<Option<Content>, AttachmentError> {
    if text.len() as u64 / 4 * 3 > 2 * CONTENT_MAX_BYTES {
        return Err(AttachmentError::TooLarge(path.to_owned()));
    }
    let letters: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = BASE64.decode(&letters).map_err(|_| AttachmentError::NotBase64(path.to_owned()))?;
    if bytes.len() as u64 > CONTENT_MAX_BYTES {
        return Err(AttachmentError::TooLarge(path.to_owned()));
    }
    Ok(Tree::of(&bytes).map(|(attachment, tree)| Content { attachment, tree, bytes }))
}

fn is_ours(extension: &Value) -> bool {
    extension["url"] == ATTACHMENT_EXTENSION
}

/// In the place of `data` stands what names it; other extensions of the element stay.
fn put_name(object: &mut Map<String, Value>, attachment: &Attachment) {
    let extension = json!({"url": ATTACHMENT_EXTENSION, "extension": [
        {"url": "hash", "valueString": attachment.hash.to_string()},
        {"url": "size", "valueUnsignedInt": attachment.size},
    ]});
    let at = object.keys().position(|key| key == "data").unwrap_or(object.len());
    object.shift_remove("data");
    let mut before = object.shift_remove("_data").unwrap_or_else(|| json!({}));
    let mut extensions = match before["extension"].take() {
        Value::Array(all) => all,
        _ => Vec::new(),
    };
    extensions.retain(|one| !is_ours(one));
    extensions.push(extension);
    match before.as_object_mut() {
        Some(element) => drop(element.insert("extension".to_owned(), Value::Array(extensions))),
        None => before = json!({"extension": extensions}),
    }
    object.shift_insert(at.min(object.len()), "_data".to_owned(), before);
}

/// The content that an element names.
fn name_in(object: &Map<String, Value>, path: &str) -> Result<Option<Attachment>, AttachmentError> {
    let extensions = object.get("_data").and_then(|element| element["extension"].as_array());
    let Some(ours) = extensions.into_iter().flatten().find(|one| is_ours(one)) else { return Ok(None) };
    let part = |name: &str| {
        let parts = ours["extension"].as_array().into_iter().flatten();
        parts.filter(|part| part["url"] == name).find_map(|part| {
            let mut values = part.as_object()?.iter().filter(|(key, _)| key.starts_with("value"));
            values.next().map(|(_, value)| value.clone())
        })
    };
    let hash = part("hash").and_then(|hash| hash.as_str().and_then(|hash| hash.parse::<ContentHash>().ok()));
    let size = part("size").and_then(|size| size.as_u64()).filter(|size| Attachment::may_have(*size));
    let (Some(hash), Some(size)) = (hash, size) else {
        return Err(AttachmentError::Extension(path.to_owned()));
    };
    Ok(Some(Attachment { hash, size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(n: u8) -> Vec<u8> {
        (0..INLINE_MAX_BYTES as usize + 1).map(|at| (at % 251) as u8 ^ n).collect()
    }

    fn attached(bytes: &[u8]) -> Value {
        json!({"contentType": "application/pdf", "data": BASE64.encode(bytes), "title": "Kết quả"})
    }

    #[test]
    fn large_content_leaves_wherever_it_stands() {
        let [one, two] = [large(1), large(2)];
        let mut resource = json!({"resourceType": "DocumentReference", "id": "1",
            "content": [{"attachment": attached(&one)}, {"attachment": attached(b"small")}],
            "contained": [{"resourceType": "Binary", "id": "b", "contentType": "x", "securityContext": {"reference": "#"},
                           "data": BASE64.encode(&two)}]});
        assert!(bytes_to_take(&resource) > 2 * one.len());
        let found = take_out(&mut resource).unwrap();
        let mut bytes: Vec<_> = found.contents.iter().map(|content| content.bytes.clone()).collect();
        bytes.sort();
        assert_eq!((bytes, found.named), (vec![one.clone(), two], vec![]));
        assert_eq!(bytes_to_take(&resource), 0);
        let element = &resource["content"][0]["attachment"];
        let keys: Vec<_> = element.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["contentType", "_data", "title"]);
        let (attachment, _) = Tree::of(&one).unwrap();
        let parts = &element["_data"]["extension"][0]["extension"];
        assert_eq!(parts[0]["valueString"], attachment.hash.to_string());
        assert_eq!(parts[1]["valueUnsignedInt"], attachment.size);
        assert_eq!(resource["content"][1]["attachment"], attached(b"small"), "what is small stays");
        // What is written back as it was read names the same, and nothing leaves any more.
        let before = resource.clone();
        let found = take_out(&mut resource).unwrap();
        assert_eq!((found.contents.len(), found.named.len()), (0, 2));
        assert_eq!(resource, before);
        // New data takes its place; other extensions of the element stay.
        let element = &mut resource["content"][0]["attachment"];
        element["_data"]["extension"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({"url": "other", "valueCode": "x"}));
        element["data"] = BASE64.encode(&large(3)).into();
        let found = take_out(&mut resource).unwrap();
        assert_eq!((found.contents.len(), found.named.len()), (1, 1));
        let extensions = resource["content"][0]["attachment"]["_data"]["extension"].as_array().unwrap();
        assert_eq!((extensions.len(), &extensions[0]["url"]), (2, &json!("other")));
    }

    #[test]
    fn what_is_put_back_is_what_left() {
        let [one, two] = [large(1), large(2)];
        let mut second = attached(&two);
        second["_data"] = json!({"id": "d", "extension": [{"url": "other", "valueCode": "x"}]});
        let before = json!({"resourceType": "DocumentReference", "id": "1",
            "content": [{"attachment": attached(&one)}, {"attachment": second}, {"attachment": attached(b"small")}]});
        let mut resource = before.clone();
        let contents = take_out(&mut resource).unwrap().contents;
        let named = resource.clone();
        let mut asked = 0;
        put_back(&mut resource, &mut |_| {
            asked += 1;
            Ok::<_, ()>(None)
        })
        .unwrap();
        assert_eq!((asked, &resource), (2, &named), "what nobody has stays a name");
        assert_eq!(put_back(&mut resource, &mut |_| Err(7)), Err(7));
        put_back(&mut resource, &mut |name| {
            let content = contents.iter().find(|content| content.attachment == *name);
            Ok::<_, ()>(content.map(|content| content.bytes.clone()))
        })
        .unwrap();
        assert_eq!(resource, before);
        // In the order in which it stood as well.
        assert_eq!(resource["content"][0].to_string(), before["content"][0].to_string());
    }

    #[test]
    fn only_attachments_and_binaries_have_content() {
        let data = BASE64.encode(&large(1));
        for stays in [
            json!({"resourceType": "Observation", "valueSampledData":
                {"origin": {"value": 0}, "period": 10, "dimensions": 1, "data": data.clone()}}),
            json!({"resourceType": "Provenance", "signature": [{"type": [], "when": "2026", "who": {}, "data": data.clone()}]}),
            json!({"resourceType": "Basic", "data": data.clone()}),
            json!({"resourceType": "DocumentReference", "content": [{"attachment": {"data": 7}}]}),
            json!({"resourceType": "DocumentReference", "content": [{"attachment": {"url": "https://x"}}]}),
        ] {
            let mut resource = stays.clone();
            assert_eq!(take_out(&mut resource), Ok(Found::default()), "{stays}");
            assert_eq!(resource, stays);
            assert_eq!(bytes_to_take(&resource), 0);
        }
    }

    #[test]
    fn white_space_in_base64_is_none_of_the_content() {
        let one = large(1);
        let text = BASE64.encode(&one);
        let lines: Vec<_> =
            text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let mut resource = json!({"resourceType": "Binary", "data": lines.join("\r\n")});
        assert_eq!(take_out(&mut resource).unwrap().contents[0].bytes, one);
        // White space alone makes nothing large.
        let spaced = format!("{}{}", " ".repeat(40_000), BASE64.encode(b"small"));
        let mut resource = json!({"resourceType": "Binary", "data": spaced});
        assert_eq!(take_out(&mut resource), Ok(Found::default()));
    }

    #[test]
    fn what_cannot_be_taken_is_refused_in_clear_words_and_without_values() {
        let wrong = |resource: Value| take_out(&mut resource.clone()).unwrap_err().to_string();
        let path = "content[0].attachment.data";
        let of = |attachment: Value| json!({"resourceType": "DocumentReference", "content": [{"attachment": attachment}]});
        let text = wrong(of(json!({"data": "đ".repeat(20_000)})));
        assert!(text.starts_with(&format!("{path} is not base64;")) && !text.contains('đ'), "{text}");
        let text = wrong(of(json!({"data": BASE64.encode(&vec![0; CONTENT_MAX_BYTES as usize + 1])})));
        assert!(text.starts_with(&format!("{path} is larger than 32 MB;")), "{text}");
        assert!(
            take_out(&mut of(json!({"data": BASE64.encode(&vec![0; CONTENT_MAX_BYTES as usize])}))).is_ok()
        );
        let text = wrong(of(json!({"data": "A".repeat(3 * CONTENT_MAX_BYTES as usize)})));
        assert!(text.contains("is larger than"), "{text}");
        for parts in [
            json!([]),
            json!([{"url": "hash", "valueString": "a7"}, {"url": "size", "valueUnsignedInt": 20_000}]),
            json!([{"url": "hash", "valueString": "a7".repeat(32)}, {"url": "size", "valueUnsignedInt": 1}]),
        ] {
            let element = json!({"extension": [{"url": ATTACHMENT_EXTENSION, "extension": parts}]});
            assert!(wrong(of(json!({"_data": element}))).contains("cannot be read"));
        }
        let many: Vec<_> =
            (0..=NAMED_MAX as u8).map(|n| json!({"attachment": attached(&large(n))})).collect();
        assert!(
            wrong(json!({"resourceType": "DocumentReference", "content": many})).contains("more than 16")
        );
        // The same twice is one.
        let twice = vec![json!({"attachment": attached(&large(1))}); 20];
        let mut resource = json!({"resourceType": "DocumentReference", "content": twice});
        assert_eq!(take_out(&mut resource).unwrap().contents.len(), 1);
    }
}
