package words

// Stem returns the stem of a lower-case English word after Porter ("An
// algorithm for suffix stripping", Program 14, 1980; tartarus.org/martin/
// PorterStemmer). Words with other than ASCII letters are returned as they
// are.
func Stem(w string) string {
	if len(w) < 3 {
		return w
	}
	for i := range len(w) {
		if w[i] < 'a' || w[i] > 'z' {
			return w
		}
	}
	s := stemmer{[]byte(w)}
	s.step1()
	s.step2()
	s.step3()
	s.step4()
	s.step5()
	return string(s.b)
}

type stemmer struct{ b []byte }

func (s *stemmer) consonant(i int) bool {
	switch s.b[i] {
	case 'a', 'e', 'i', 'o', 'u':
		return false
	case 'y':
		return i == 0 || !s.consonant(i-1)
	}
	return true
}

// measure counts the vowel-consonant sequences of the first n letters.
func (s *stemmer) measure(n int) (m int) {
	i := 0
	for i < n && s.consonant(i) {
		i++
	}
	for i < n {
		for i < n && !s.consonant(i) {
			i++
		}
		if i >= n {
			break
		}
		m++
		for i < n && s.consonant(i) {
			i++
		}
	}
	return m
}

func (s *stemmer) vowel(n int) bool {
	for i := range n {
		if !s.consonant(i) {
			return true
		}
	}
	return false
}

func (s *stemmer) double(n int) bool {
	return n >= 2 && s.b[n-1] == s.b[n-2] && s.consonant(n-1)
}

// cvc says whether the first n letters end in consonant, vowel, consonant, the
// last not w, x or y.
func (s *stemmer) cvc(n int) bool {
	if n < 3 || !s.consonant(n-1) || s.consonant(n-2) || !s.consonant(n-3) {
		return false
	}
	c := s.b[n-1]
	return c != 'w' && c != 'x' && c != 'y'
}

func (s *stemmer) ends(suffix string) (n int, ok bool) {
	n = len(s.b) - len(suffix)
	return n, n >= 0 && string(s.b[n:]) == suffix
}

func (s *stemmer) set(n int, suffix string) { s.b = append(s.b[:n], suffix...) }

func (s *stemmer) step1() {
	if n, ok := s.ends("sses"); ok {
		s.set(n, "ss")
	} else if n, ok := s.ends("ies"); ok {
		s.set(n, "i")
	} else if _, ok := s.ends("ss"); ok {
	} else if n, ok := s.ends("s"); ok {
		s.set(n, "")
	}
	shortened := false
	if n, ok := s.ends("eed"); ok {
		if s.measure(n) > 0 {
			s.set(n, "ee")
		}
	} else if n, ok := s.ends("ed"); ok && s.vowel(n) {
		s.set(n, "")
		shortened = true
	} else if n, ok := s.ends("ing"); ok && s.vowel(n) {
		s.set(n, "")
		shortened = true
	}
	if shortened {
		n := len(s.b)
		_, at := s.ends("at")
		_, bl := s.ends("bl")
		_, iz := s.ends("iz")
		switch {
		case at, bl, iz:
			s.set(n, "e")
		case s.double(n):
			if c := s.b[n-1]; c != 'l' && c != 's' && c != 'z' {
				s.set(n-1, "")
			}
		case s.measure(n) == 1 && s.cvc(n):
			s.set(n, "e")
		}
	}
	if n, ok := s.ends("y"); ok && s.vowel(n) {
		s.set(n, "i")
	}
}

func (s *stemmer) replace(min int, pairs []string) {
	for i := 0; i < len(pairs); i += 2 {
		if n, ok := s.ends(pairs[i]); ok {
			if s.measure(n) > min {
				s.set(n, pairs[i+1])
			}
			return
		}
	}
}

func (s *stemmer) step2() {
	s.replace(0, []string{"ational", "ate", "tional", "tion", "enci", "ence", "anci", "ance", "izer", "ize", "abli", "able", "alli", "al", "entli", "ent",
		"eli", "e", "ousli", "ous", "ization", "ize", "ation", "ate", "ator", "ate", "alism", "al", "iveness", "ive", "fulness", "ful", "ousness", "ous",
		"aliti", "al", "iviti", "ive", "biliti", "ble"})
}

func (s *stemmer) step3() {
	s.replace(0, []string{"icate", "ic", "ative", "", "alize", "al", "iciti", "ic", "ical", "ic", "ful", "", "ness", ""})
}

func (s *stemmer) step4() {
	for _, suffix := range []string{"al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti", "ous", "ive", "ize"} {
		n, ok := s.ends(suffix)
		if !ok {
			continue
		}
		if suffix == "ion" && (n == 0 || s.b[n-1] != 's' && s.b[n-1] != 't') {
			return
		}
		if s.measure(n) > 1 {
			s.set(n, "")
		}
		return
	}
}

func (s *stemmer) step5() {
	n := len(s.b) - 1
	if s.b[n] == 'e' {
		if m := s.measure(n); m > 1 || m == 1 && !s.cvc(n) {
			s.set(n, "")
		}
	}
	n = len(s.b)
	if s.measure(n) > 1 && s.double(n) && s.b[n-1] == 'l' {
		s.set(n-1, "")
	}
}
