//! Bus and interrupt traits of the metaphrase PC
