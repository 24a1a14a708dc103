// Package words cuts text into the terms that an index knows: lower-case words
// in Porter's stems, without those that every sentence has. Index and question
// are cut the same way, here; it has no state and allocates what it returns.
package words

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxWord is the longest word in bytes; longer ones are no words.
	maxWord = 40
	// maxTerms bounds the terms of one text.
	maxTerms = 4096
)

// Split returns the words of text in order, in lower case: runs of letters and
// digits that begin with a letter. A word in camel case gives its parts and, if
// it has several, itself too. Placeholders of masked values, <num> and the
// like, give none.
func Split(text string) []string {
	var list []string
	for i := 0; i < len(text) && len(list) < maxTerms; {
		if text[i] == '<' {
			if end := placeholder(text[i:]); end > 0 {
				i += end
				continue
			}
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			i += n
			continue
		}
		start := i
		for i < len(text) {
			if r, n = utf8.DecodeRuneInString(text[i:]); !unicode.IsLetter(r) && !unicode.IsDigit(r) {
				if r != '\'' || !apostrophe(text[i+1:]) {
					break
				}
			}
			i += n
		}
		list = camel(list, text[start:i])
	}
	return list
}

// apostrophe says whether what follows one is the rest of don't or it's.
func apostrophe(rest string) bool {
	return len(rest) > 0 && strings.ContainsRune("tsdmrlv", rune(rest[0])) && (len(rest) == 1 || !isLetter(rest[1]) || len(rest) > 1 && (rest[:2] == "re" || rest[:2] == "ll" || rest[:2] == "ve"))
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func placeholder(s string) int {
	for i := 1; i < len(s) && i < 8; i++ {
		if s[i] == '>' {
			return i + 1
		}
		if !isLetter(s[i]) && s[i] != '*' {
			break
		}
	}
	return 0
}

// camel appends the words of w, a run of letters and digits.
func camel(list []string, w string) []string {
	if r, _ := utf8.DecodeRuneInString(w); !unicode.IsLetter(r) || len(w) > maxWord {
		return list
	}
	w = strings.TrimSuffix(w, "'s")
	start, parts := 0, 0
	var prev rune
	for i, r := range w {
		if i > 0 && unicode.IsUpper(r) && unicode.IsLower(prev) {
			list = append(list, strings.ToLower(w[start:i]))
			start, parts = i, parts+1
		}
		prev = r
	}
	if parts > 0 {
		list = append(list, strings.ToLower(w[start:]))
	}
	return append(list, strings.ToLower(w))
}

// Terms returns the stems of the words of text in order, stop words left out.
func Terms(text string) []string {
	list := Split(text)
	kept := list[:0]
	for _, w := range list {
		if !Stop(w) {
			kept = append(kept, Stem(w))
		}
	}
	return kept
}

// Stop says whether w, in lower case, is a word that says nothing of what a
// text is about.
func Stop(w string) bool { return len(w) < 2 || stopWords[w] }

var stopWords = func() map[string]bool {
	m := make(map[string]bool)
	for _, w := range strings.Fields(`a about after again all also am an and another any anybody anyone anything are aren't as at be because been before being
		both but by can can't cannot could couldn't did didn't do does doesn't doing don't done each either else ever every everybody everything few for from
		further get gets getting give given go goes going gone got had has hasn't have having he her here him his how i i'm if in into is isn't it it's its
		itself just know let like lot made make makes many may me might more most much must my near no nor not now of off often on once only onto
		or other our ours out over own per please put same shall she should show since so some somebody someone something still such take tell than that
		the their them then there these they thing things this those though through thus to too under until up upon us use used uses using very via want wanted was
		wasn't we were weren't what whatever when where whether which while who whom whose why will with within without won't would wouldn't yet you your
		happen happened happening happens anywhere find list look see see say says said came come comes went become became seem seems way ok
		us`) {
		m[w] = true
	}
	return m
}()
