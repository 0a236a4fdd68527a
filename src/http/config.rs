//! `/config/{key}`: the settings in force, and the log level while the server runs. Requests, responses and errors are those
//! of nsqd 1.3.0; who may ask is decided as nsqadmin does.

use std::net::SocketAddr;

use super::response::Response;
use super::routes::config_key;
use super::status::{ApiError, FORBIDDEN, INVALID_OPTION, INVALID_VALUE, INVALID_VALUE_LENGTH};
use crate::context::WorkerContext;
use crate::limits::CONFIG_VALUE_BYTES_MAX;
use crate::log::Level;
use crate::options::SettingValue;

const LOG_LEVEL: &str = "log_level";

/// Reads or sets the setting that the path names.
pub fn config(
    (method, path, body): (&str, &[u8], &[u8]),
    peer: SocketAddr,
    context: &WorkerContext,
) -> Result<Response, ApiError> {
    let options = context.shared.options.load();
    if !options.allow_config_from_cidr.contains(peer.ip()) {
        return Err(FORBIDDEN);
    }
    let key = config_key(path).and_then(|key| str::from_utf8(key).ok()).ok_or(INVALID_OPTION)?;
    if method == "PUT" {
        set(key, body, peer, context)?;
    }
    let value = match key {
        // Not that of the options, since a request may have set another.
        LOG_LEVEL => Some(SettingValue::of_level(context.log.level())),
        _ => options.value(key),
    };
    match value.ok_or(INVALID_OPTION)? {
        SettingValue::Text(text) => Ok(Response::Text(text)),
        SettingValue::Json(json) => Ok(Response::Json(json.into_bytes())),
    }
}

fn set(key: &str, value: &[u8], peer: SocketAddr, context: &WorkerContext) -> Result<(), ApiError> {
    if value.is_empty() || value.len() > CONFIG_VALUE_BYTES_MAX {
        return Err(INVALID_VALUE_LENGTH);
    }
    if key != LOG_LEVEL {
        return Err(INVALID_OPTION);
    }
    let level: Level = str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(INVALID_VALUE)?;
    context.log.set_level(level);
    context.log.client(&peer).info(format_args!("client({peer}) has set the log level to {}", level.name()));
    Ok(())
}
