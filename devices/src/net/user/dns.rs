//! The answer of a name server that knows nothing.

/// Bytes of a message's header.
const HEADER: usize = 12;
/// Longest name.
const MOST_NAME: usize = 255;

const FLAG_RESPONSE: u8 = 0x80;
/// Kept of the question's flags: the kind of query, and that recursion is desired.
const KEPT: u8 = 0x79;
const REFUSED: u8 = 5;

/// The refusal of a question, or nothing if it is none.
pub fn refusal(question: &[u8]) -> Option<Vec<u8>> {
    let header = question.get(..HEADER)?;
    if header[2] & FLAG_RESPONSE != 0 {
        return None;
    }
    let mut answer = header[..2].to_vec();
    answer.extend([FLAG_RESPONSE | header[2] & KEPT, REFUSED]);
    // Resolvers want to see what they have asked.
    let asked = question_len(&question[HEADER..]).filter(|_| header[4..6] == [0, 1]);
    answer.extend([0, u8::from(asked.is_some()), 0, 0, 0, 0, 0, 0]);
    answer.extend(&question[HEADER..HEADER + asked.unwrap_or(0)]);
    Some(answer)
}

/// The length of a question: a name, type and class.
fn question_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            0 => break,
            label @ 1..=63 => at += 1 + usize::from(*label),
            _ => return None,
        }
        if at >= MOST_NAME {
            return None;
        }
    }
    let len = at + 1 + 4;
    (len <= bytes.len()).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_refused() {
        let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        question.extend(b"\x03www\x01x\x00\x00\x01\x00\x01");
        let asked = question.len();
        question.extend([0; 11]);
        let answer = refusal(&question).unwrap();
        assert_eq!(answer[..12], [0x12, 0x34, 0x81, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer[12..], question[12..asked]);
        for cut in 12..asked {
            let answer = refusal(&question[..cut]).unwrap();
            assert_eq!((answer.len(), answer[5]), (12, 0), "{cut}");
        }
        assert_eq!(refusal(&question[..11]), None);
        assert_eq!(refusal(&answer), None, "an answer is no question");
        question[12] = 0xc0;
        assert_eq!(refusal(&question).unwrap().len(), 12);
    }
}
