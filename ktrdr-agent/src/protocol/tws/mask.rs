//! Account numbers do not leave the agent.

/// Digits of an account number: IB gives 5 to 8.
const DIGITS: std::ops::RangeInclusive<usize> = 5..=9;

/// The text with account numbers (`U1234567`, `DU1234567`, `DF…`, `F…`, `I…`) replaced by their letters and `***`.
pub(super) fn accounts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let letters = bare.bytes().take_while(u8::is_ascii_uppercase).count();
        let (front, digits) = bare.split_at(letters);
        let account = matches!(front, "U" | "F" | "I" | "DU" | "DF" | "DI")
            && DIGITS.contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit());
        if account {
            out.push_str(front);
            out.push_str("***");
            out.push_str(&word[bare.len()..]);
        } else {
            out.push_str(word);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_accounts_and_nothing_else() {
        assert_eq!(accounts("Account DU1234567, U7654321: not known"), "Account DU***, U***: not known");
        for text in ["No data for AAPL", "U2", "client id 12345678", "IBKR:U", "ÜU1 – 20251113", ""] {
            assert_eq!(accounts(text), text);
        }
    }
}
