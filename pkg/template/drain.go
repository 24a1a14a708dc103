package template

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Any stands in a group's template for a word in which its lines differ.
const Any = "<*>"

const (
	// similar is the share of equal words from which a line belongs to a
	// group. Below 0.6 groups of different meaning begin to merge.
	similar = 0.6

	// maxLeaf is how many groups of a leaf, the newest, a line is compared
	// with.
	maxLeaf = 256

	// maxWords bounds the words of a line that are looked at.
	maxWords = 128
)

// A Group is a set of masked lines of equal length that share most words.
type Group struct {
	ID    int      `json:"id"` // from 0, in order of appearance
	Key   string   `json:"key"`
	Words []string `json:"words"` // Any where its lines differ
}

// Template returns the group's words as one line.
func (g *Group) Template() string { return strings.Join(g.Words, " ") }

// A Drain groups masked lines. The same lines in the same order give the same
// groups. The zero value is empty and ready.
type Drain struct {
	groups []*Group
	tree   map[string]map[string][]*Group // by key and length, then first words
}

// Add returns the group of a masked line; lines with different keys (where
// they are from) are never in one group. changed says that the group is new or
// has another template now.
func (d *Drain) Add(key, masked string) (g *Group, changed bool) {
	words := strings.Fields(masked)
	if len(words) > maxWords {
		words = append(words[:maxWords-1:maxWords-1], Any)
	}
	leaf := d.leaf(key, words)
	best, bestSame := (*Group)(nil), -1
	for _, c := range (*leaf)[max(0, len(*leaf)-maxLeaf):] {
		same := 0
		for i, w := range c.Words {
			if w == words[i] {
				same++
			}
		}
		if same > bestSame {
			best, bestSame = c, same
		}
	}
	if best == nil || float64(bestSame) < similar*float64(len(words)) {
		g := &Group{ID: len(d.groups), Key: key, Words: words}
		d.groups = append(d.groups, g)
		*leaf = append(*leaf, g)
		d.tree[branchKey(key, len(words))][first(words)] = *leaf
		return g, true
	}
	for i, w := range best.Words {
		if w != words[i] && w != Any {
			best.Words[i], changed = Any, true
		}
	}
	return best, changed
}

func branchKey(key string, n int) string { return fmt.Sprintf("%s\x00%d", key, n) }

// first returns the name of the leaf within a branch: the first two words as
// far as they are constant.
func first(words []string) string {
	name := ""
	for _, w := range words[:min(2, len(words))] {
		if strings.Contains(w, "<") {
			w = Any
		}
		name += w + " "
	}
	return name
}

func (d *Drain) leaf(key string, words []string) *[]*Group {
	if d.tree == nil {
		d.tree = make(map[string]map[string][]*Group)
	}
	k := branchKey(key, len(words))
	if d.tree[k] == nil {
		d.tree[k] = make(map[string][]*Group)
	}
	list := d.tree[k][first(words)]
	return &list
}

// Groups returns all groups, by ID. The caller changes nothing.
func (d *Drain) Groups() []*Group { return d.groups }

// MarshalText returns the state, which UnmarshalText takes.
func (d *Drain) MarshalText() ([]byte, error) { return json.Marshal(d.groups) }

// UnmarshalText restores a state: what Add says from here on is what it would
// have said.
func (d *Drain) UnmarshalText(state []byte) error {
	var groups []*Group
	if err := json.Unmarshal(state, &groups); err != nil {
		return fmt.Errorf("state of the groups: %w", err)
	}
	return d.Restore(groups)
}

// Restore is UnmarshalText for groups that were kept one by one.
func (d *Drain) Restore(groups []*Group) error {
	*d = Drain{}
	for i, g := range groups {
		if g == nil || g.ID != i || len(g.Words) > maxWords {
			return fmt.Errorf("state of the groups: group %d is not in its place", i)
		}
	}
	for _, g := range groups {
		// The lines of a leaf have the same constant first words, so the
		// template names the leaf that its first line was put in.
		leaf, name := d.leaf(g.Key, g.Words), first(g.Words)
		d.groups = append(d.groups, g)
		d.tree[branchKey(g.Key, len(g.Words))][name] = append(*leaf, g)
	}
	return nil
}
