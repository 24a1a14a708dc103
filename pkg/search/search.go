// Package search asks an index a question in plain words and gives the events
// that answer it, best first.
//
// A question is data: nothing in it is an operator. Words in double quotes are
// looked for as a phrase; words that every question has (the, what, did) are
// left out. For now the ranking is BM25 over single events: each Hit is one
// event, its Template its message.
package search

import (
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// A Hit is an answer, as the format of GhostBridge's searches has it.
type Hit struct {
	Score       float64      `json:"score"`
	Message     string       `json:"message"` // of the newest occurrence
	Template    string       `json:"template"`
	Source      string       `json:"source"`
	Type        string       `json:"type"`
	Subject     string       `json:"subject,omitempty"`
	Host        string       `json:"host"`
	Severity    string       `json:"severity"`
	Actor       string       `json:"actor,omitempty"`
	Count       int64        `json:"count"`
	First       time.Time    `json:"first"`
	Last        time.Time    `json:"last"`
	Occurrences []Occurrence `json:"occurrences"` // newest first
	Verified    *Verified    `json:"verified"`    // null while a finding stands
	Finding     string       `json:"finding,omitempty"`
}

// An Occurrence is one event of a Hit.
type Occurrence struct {
	Index int64     `json:"index"`
	Time  time.Time `json:"time"`
}

// Verified says up to where the index has checked the log that it is of.
type Verified struct {
	TreeSize int64  `json:"tree_size"`
	Root     string `json:"root"`
}

// A State is what the index says of the log: how far it is verified, or why
// not.
type State struct {
	Verified *Verified
	Finding  string
}

// ErrNoQuestion says that a question has no word to look for.
var ErrNoQuestion = errors.New("the question has no word to look for")

// Ask searches ix for question. The filters of q hold; its terms are set from
// the question. An empty answer is no error.
func Ask(ix index.Reader, question string, q index.Query, s State) ([]Hit, error) {
	q.Terms = Terms(question)
	if len(q.Terms) == 0 {
		return nil, ErrNoQuestion
	}
	matches, err := ix.Search(q)
	if err != nil {
		return nil, err
	}
	hits := make([]Hit, len(matches))
	for i, m := range matches {
		message := m.Message
		if message == "" {
			message = string(m.Data)
		}
		hits[i] = Hit{
			Score: m.Score, Message: message, Template: message, Source: m.Source, Type: m.Type, Subject: m.Subject,
			Host: m.Host, Severity: m.Severity.String(), Actor: m.Actor, Count: 1, First: m.Time, Last: m.Time,
			Occurrences: []Occurrence{{m.Index, m.Time}}, Verified: s.Verified, Finding: s.Finding,
		}
	}
	return hits, nil
}

// maxTerms bounds the work that a question can ask for.
const maxTerms = 64

// Terms cuts a question into what to look for.
func Terms(question string) []index.Term {
	var terms, common []index.Term
	add := func(text string, phrase bool) {
		if !strings.ContainsFunc(text, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) || len(terms) >= maxTerms {
			return
		}
		t := index.Term{Text: text, Phrase: phrase}
		if !phrase && stopWords[strings.ToLower(strings.TrimFunc(text, unicode.IsPunct))] {
			if len(common) < maxTerms {
				common = append(common, t)
			}
			return
		}
		terms = append(terms, t)
	}
	for i, part := range strings.Split(question, `"`) {
		if i%2 == 1 {
			add(part, true)
			continue
		}
		for _, word := range strings.Fields(part) {
			add(word, false)
		}
	}
	if len(terms) == 0 {
		return common // "who is it" still looks for its words
	}
	return terms
}

var stopWords = func() map[string]bool {
	m := make(map[string]bool)
	for _, w := range strings.Fields(`a an and any are as at be been but by can did do does for from had has have how i if in into is it its
		me my of on or our show so tell than that the their them then there these they this to up us was we were what when where which who
		whom whose why will with you your`) {
		m[w] = true
	}
	return m
}()
