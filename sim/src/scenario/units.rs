//! Numbers with units, as scenarios write them and as a run takes them.

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
/// No duration of a scenario is longer.
const DURATION_MAX: i64 = 7 * 24 * 3600 * SECOND;

const DURATIONS: &[(&str, i64)] = &[
    ("us", MICROSECOND),
    ("ms", MILLISECOND),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
    ("d", 24 * 3600 * SECOND),
];
const SIZES: &[(&str, i64)] = &[
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
];

/// What a number counts, and what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A whole number from the first to the second.
    Count(i64, i64),
    /// `"250ms"`; nanoseconds, at least this many.
    Duration(i64),
    /// `"-1h"`; nanoseconds.
    SignedDuration,
    /// `"3s"`; whole seconds, from the first to the second.
    Seconds(i64, i64),
    /// `"64KiB"` or a number of bytes, from the first to the second.
    Bytes(i64, i64),
    /// `0.25`, from 0 to 1; parts of a million.
    Share,
    /// The same, up to 0.2: how far the rate of a clock may be off.
    Deviation,
    /// `1.05`, how many times as fast, from 0.5 to 2; parts of a million.
    Rate,
}

impl Unit {
    /// What an error says was expected.
    pub(super) fn expected(self) -> String {
        match self {
            Self::Count(first, last) => format!("a whole number from {first} to {last}"),
            Self::Duration(0) => "a duration such as \"250ms\" or \"5s\"".to_owned(),
            Self::Duration(_) => {
                "a duration such as \"250ms\" or \"5s\", which is not zero".to_owned()
            }
            Self::SignedDuration => {
                "a duration such as \"1h\", or back in time such as \"-30s\"".to_owned()
            }
            Self::Seconds(first, last) => {
                format!("whole seconds from \"{first}s\" to \"{last}s\"")
            }
            Self::Bytes(first, last) => {
                format!("a size from {first} to {last} bytes such as 4096, \"16KiB\" or \"1MB\"")
            }
            Self::Share => "a share from 0 to 1 such as 0.05".to_owned(),
            Self::Deviation => "a share from 0 to 0.2 such as 0.01".to_owned(),
            Self::Rate => "a rate from 0.5 to 2 such as 1.05".to_owned(),
        }
    }

    pub(super) fn read_integer(self, text: &str, radix: u32) -> Option<i64> {
        let number = i64::from_str_radix(&text.replace('_', ""), radix).ok()?;
        match self {
            Self::Count(first, last) | Self::Bytes(first, last) => {
                (first..=last).contains(&number).then_some(number)
            }
            Self::Share | Self::Deviation | Self::Rate => {
                self.within(number.checked_mul(1_000_000)?)
            }
            _ => None,
        }
    }

    pub(super) fn read_float(self, text: &str) -> Option<i64> {
        let number = text.replace('_', "").parse::<f64>().ok()?;
        match self {
            Self::Share | Self::Deviation | Self::Rate
                if number.is_finite() && number.abs() < 1000.0 =>
            {
                self.within((number * 1e6).round() as i64)
            }
            _ => None,
        }
    }

    pub(super) fn read_text(self, text: &str) -> Option<i64> {
        let units = match self {
            Self::Duration(_) | Self::SignedDuration | Self::Seconds(..) => DURATIONS,
            Self::Bytes(..) => SIZES,
            _ => return None,
        };
        let digits_end = text.find(|letter: char| letter.is_ascii_alphabetic())?;
        let (number, unit) = text.split_at(digits_end);
        let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
        let is_number = |letter: char| letter.is_ascii_digit() || "-.".contains(letter);
        if !number.chars().all(is_number) {
            return None;
        }
        let value = number.parse::<f64>().ok()? * *scale as f64;
        if value.abs() > DURATION_MAX as f64 {
            return None;
        }
        self.within(value.round() as i64)
    }

    fn within(self, value: i64) -> Option<i64> {
        match self {
            Self::Count(..) => None,
            Self::Duration(least) => (value >= least).then_some(value),
            Self::SignedDuration => Some(value),
            Self::Seconds(first, last) => {
                let is_whole = value % SECOND == 0;
                let seconds = value / SECOND;
                (is_whole && (first..=last).contains(&seconds)).then_some(seconds)
            }
            Self::Bytes(first, last) => (first..=last).contains(&value).then_some(value),
            Self::Share => (0..=1_000_000).contains(&value).then_some(value),
            Self::Deviation => (0..=200_000).contains(&value).then_some(value),
            Self::Rate => (500_000..=2_000_000).contains(&value).then_some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let read = |text: &str| Unit::Duration(0).read_text(text);
        assert_eq!(read("250ms"), Some(250 * MILLISECOND));
        assert_eq!(read("1.5s"), Some(1500 * MILLISECOND));
        assert_eq!(read("2m"), Some(120 * SECOND));
        assert_eq!(read("20us"), Some(20 * MICROSECOND));
        for wrong in ["5", "5 s", "s", "-5s", "5sec", "1e3s", "99d", "", "1s500ms"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(Unit::SignedDuration.read_text("-1h"), Some(-3600 * SECOND));
        assert_eq!(Unit::Seconds(1, 9).read_text("3s"), Some(3));
        assert_eq!(Unit::Seconds(1, 9).read_text("3500ms"), None);
        assert_eq!(Unit::Duration(1).read_text("0s"), None);
    }

    #[test]
    fn sizes_shares_and_rates_stay_in_their_bounds() {
        let size = Unit::Bytes(10, 1 << 20);
        assert_eq!(size.read_text("16KiB"), Some(16384));
        assert_eq!(size.read_text("1MiB"), Some(1 << 20));
        assert_eq!(size.read_text("2MiB"), None);
        assert_eq!(size.read_integer("4096", 10), Some(4096));
        assert_eq!(size.read_integer("9", 10), None);
        assert_eq!(Unit::Share.read_float("0.25"), Some(250_000));
        assert_eq!(Unit::Share.read_integer("1", 10), Some(1_000_000));
        assert_eq!(Unit::Share.read_float("1.01"), None);
        assert_eq!(Unit::Share.read_float("nan"), None);
        assert_eq!(Unit::Rate.read_float("1.05"), Some(1_050_000));
        assert_eq!(Unit::Rate.read_float("0.1"), None);
        assert_eq!(Unit::Count(1, 5).read_integer("6", 10), None);
    }
}
