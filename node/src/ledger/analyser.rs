//! Cuts text into words for the search: each as the ledger's comparison folds and stems it.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

/// Words of more bytes are left out.
const WORD_BYTES_MAX: usize = 256;

/// The analyser for titles, bodies and queries, in Arabic and English alike.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Folding;

pub(super) struct Words {
    tokens: Vec<Token>,
    at: usize,
}

impl Tokenizer for Folding {
    type TokenStream<'a> = Words;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Words {
        let mut tokens = Vec::new();
        let mut from = 0;
        // Places in the text are kept for what is shown of it, so each word is folded by itself.
        while let Some(start) = text[from..].find(is_in_word).map(|at| from + at) {
            let end = text[start..].find(|c| !is_in_word(c)).map_or(text.len(), |at| start + at);
            from = end;
            if end - start > WORD_BYTES_MAX {
                continue;
            }
            for stem in crdt::ledger::stems(&text[start..end]) {
                let position = tokens.len();
                tokens.push(Token { offset_from: start, offset_to: end, position, text: stem, position_length: 1 });
            }
        }
        Words { tokens, at: 0 }
    }
}

/// Letters, digits, and the marks that stand within Arabic words.
pub(super) fn is_in_word(c: char) -> bool {
    c.is_alphanumeric()
        || matches!(c, '\'' | '’' | '\u{0300}'..='\u{036f}' | '\u{0610}'..='\u{061a}' | '\u{0640}' | '\u{064b}'..='\u{065f}' | '\u{0670}' | '\u{06d6}'..='\u{06ed}')
}

impl TokenStream for Words {
    fn advance(&mut self) -> bool {
        self.at += 1;
        self.at <= self.tokens.len()
    }

    fn token(&self) -> &Token {
        &self.tokens[self.at - 1]
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.tokens[self.at - 1]
    }
}
