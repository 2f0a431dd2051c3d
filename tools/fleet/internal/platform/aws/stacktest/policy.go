package stacktest

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Statement is one statement of a policy that was read.
type Statement struct {
	Sid, Effect                              string
	Action, NotAction, Resource, NotResource texts
	Principal, NotPrincipal                  principals
	Condition                                map[string]map[string]texts
}

// texts are a text or many.
type texts []string

// UnmarshalJSON reads either form; numbers and truths are texts to IAM.
func (t *texts) UnmarshalJSON(raw []byte) error {
	var one any
	if err := json.Unmarshal(raw, &one); err != nil {
		return err
	}
	for _, v := range list(one) {
		switch v.(type) {
		case string, bool, float64:
			*t = append(*t, fmt.Sprint(v))
		default:
			return fmt.Errorf("%s is no text: a policy has texts there", raw)
		}
	}
	return nil
}

// principals are whom a statement of a resource's policy is about, by kind: AWS, Service.
type principals map[string]texts

// UnmarshalJSON reads `"*"`, which is everybody, as well.
func (p *principals) UnmarshalJSON(raw []byte) error {
	if string(raw) == `"*"` {
		*p = principals{"AWS": {"*"}}
		return nil
	}
	var kinds map[string]texts
	if err := json.Unmarshal(raw, &kinds); err != nil {
		return err
	}
	*p = kinds
	return nil
}

// Policy reads a policy out of a resource's properties. A field that it doesn't know is an error: it would be one more thing that a policy
// says and nobody looks at.
func Policy(v any) ([]Statement, error) {
	if v == nil {
		return nil, nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var read struct {
		Version   string
		ID        string `json:"Id"`
		Statement []Statement
	}
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&read); err != nil {
		return nil, fmt.Errorf("read a policy: %w", err)
	}
	if read.Version != "2012-10-17" {
		return nil, fmt.Errorf("a policy has the version %q, which expands no variables: use 2012-10-17", read.Version)
	}
	for _, st := range read.Statement {
		if st.Effect != "Allow" && st.Effect != "Deny" {
			return nil, fmt.Errorf("statement %s has the effect %q", st.Sid, st.Effect)
		}
	}
	return read.Statement, nil
}

// matches says whether a pattern of IAM's, with * and ?, takes a text.
func matches(pattern, text string) bool {
	for pattern != "" {
		switch {
		case pattern[0] == '*':
			for i := 0; i <= len(text); i++ {
				if matches(pattern[1:], text[i:]) {
					return true
				}
			}
			return false
		case text == "", pattern[0] != '?' && pattern[0] != text[0]:
			return false
		}
		pattern, text = pattern[1:], text[1:]
	}
	return text == ""
}

func anyMatches(patterns []string, text string) bool {
	for _, p := range patterns {
		if matches(p, text) {
			return true
		}
	}
	return false
}
