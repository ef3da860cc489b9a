//! `--ulimit NAME=SOFT[:HARD]`.

use proto::docker::container::Ulimit;

pub(crate) fn parse(text: &str) -> Result<Ulimit, String> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard): (i64, i64) =
        (soft.parse().map_err(|_| invalid())?, hard.parse().map_err(|_| invalid())?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits() {
        let limit = parse("nofile=100:200").unwrap();
        assert_eq!((limit.soft, limit.hard), (100, 200));
        assert_eq!(parse("core=-1").unwrap().hard, -1);
        for bad in ["nofile", "nofile=", "nofile=2:1", "nofile=a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
