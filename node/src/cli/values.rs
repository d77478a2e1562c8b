//! Values as people write them on a command line: durations, sizes, assignments.

use std::str::FromStr;

/// Reads `90`, `90s`, `10m`, `1h 30m`, `500ms` into milliseconds; a bare number is seconds.
pub(super) fn duration_ms(text: &str) -> Result<u64, String> {
    let duration = match text.parse::<u64>() {
        Ok(seconds) => std::time::Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error}: write it like 90s, 10m or 24h"))?,
    };
    match u64::try_from(duration.as_millis()) {
        Ok(0) => Err("it must be longer than nothing".into()),
        Ok(ms) if ms <= DURATION_MS_MAX => Ok(ms),
        Ok(_) | Err(_) => Err("it must be at most ten years".into()),
    }
}

/// Longest duration: ten years.
const DURATION_MS_MAX: u64 = 10 * 366 * 24 * 3_600 * 1_000;

/// Reads `512`, `64K`, `2GiB`, `10 GB` into bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("{unit:?} is no unit of size: use KiB, MiB, GiB, KB, MB or GB")),
    };
    let wrong = || format!("{text:?} is no size: write it like 512MiB or 2G");
    match number.split_once('.') {
        None => number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong),
        Some((whole, fraction)) => {
            let whole = u64::from_str(whole).map_err(|_| wrong())?;
            let places = u32::try_from(fraction.len()).ok().filter(|places| *places <= 6).ok_or_else(wrong)?;
            let part = u64::from_str(fraction).map_err(|_| wrong())?;
            let part = u128::from(part) * u128::from(factor) / 10_u128.pow(places);
            let part = u64::try_from(part).map_err(|_| wrong())?;
            whole.checked_mul(factor).and_then(|n| n.checked_add(part)).ok_or_else(wrong)
        }
    }
}

/// Reads `KEY=VALUE`; `KEY` alone takes the value that it has here.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, value.to_owned()),
        None => (text, std::env::var(text).map_err(|_| format!("{text} is not set here: write {text}=VALUE"))?),
    };
    if key.is_empty() {
        return Err("the name before = is empty: write KEY=VALUE".into());
    }
    Ok((key.to_owned(), value))
}

/// Reads the name of a job, node, document or trace: what may stand in a path of the API.
pub(super) fn id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
        return Err("an identifier has 1 to 256 characters".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration_ms("90"), Ok(90_000));
        assert_eq!(duration_ms("24h"), Ok(86_400_000));
        assert_eq!(duration_ms("1h 30m"), Ok(5_400_000));
        assert_eq!(duration_ms("250ms"), Ok(250));
        assert!(duration_ms("0s").is_err() && duration_ms("soon").is_err() && duration_ms("900000y").is_err());
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(bytes("512"), Ok(512));
        assert_eq!(bytes("2G"), Ok(2 << 30));
        assert_eq!(bytes("1.5 GiB"), Ok(3 << 29));
        assert_eq!(bytes("10MB"), Ok(10_000_000));
        assert!(bytes("2 apples").is_err() && bytes("99999999999999999999").is_err() && bytes("").is_err());
    }
}
