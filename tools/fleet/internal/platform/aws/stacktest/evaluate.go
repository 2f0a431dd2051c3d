package stacktest

import (
	"fmt"
	"strconv"
	"strings"
)

// Principal is who calls: a role, in a session of it.
type Principal struct {
	ARN, Account string
	Tags         map[string]string
}

// Request is one call.
type Request struct {
	Principal Principal
	Action    string
	// Resource that it is about, and its tags.
	Resource     string
	ResourceTags map[string]string
	// Context is what else is known of it, by the condition's key.
	Context map[string]string
	// AnyContext is the caller as an attacker: whatever a condition asks of a key that isn't known, the caller finds a way to have it as it
	// suits, so that it allows, and doesn't deny.
	AnyContext bool
}

// allows says whether any statement allows the request, and which; denies the same of denying.
func allows(statements []Statement, r Request) (string, bool, error) {
	return holds(statements, "Allow", r)
}

// Allows says whether statements, of a policy alone, allow a request and none denies it.
func Allows(statements []Statement, r Request) (bool, error) {
	if _, is, err := denies(statements, r); err != nil || is {
		return false, err
	}
	_, is, err := allows(statements, r)
	return is, err
}

func denies(statements []Statement, r Request) (string, bool, error) {
	return holds(statements, "Deny", r)
}

func holds(statements []Statement, effect string, r Request) (string, bool, error) {
	r = r.asAsked()
	for _, st := range statements {
		if st.Effect != effect {
			continue
		}
		is, err := st.holds(r)
		if err != nil {
			return st.Sid, false, fmt.Errorf("statement %s: %w", st.Sid, err)
		}
		if is {
			return st.Sid, true, nil
		}
	}
	return "", false, nil
}

func (st Statement) holds(r Request) (bool, error) {
	action := strings.ToLower(r.Action)
	lower := func(in []string) []string {
		out := make([]string, 0, len(in))
		for _, a := range in {
			out = append(out, strings.ToLower(a))
		}
		return out
	}
	switch {
	case len(st.Action) > 0 && !anyMatches(lower(st.Action), action), len(st.NotAction) > 0 && anyMatches(lower(st.NotAction), action):
		return false, nil
	case len(st.Action) == 0 && len(st.NotAction) == 0:
		return false, fmt.Errorf("it has neither Action nor NotAction")
	}
	if len(st.Principal) > 0 && !st.Principal.has(r.Principal) || len(st.NotPrincipal) > 0 && st.NotPrincipal.has(r.Principal) {
		return false, nil
	}
	resources, err := r.filled(st.Resource)
	if err != nil {
		return false, nil //nolint:nilerr // a variable that has no value matches nothing
	}
	others, err := r.filled(st.NotResource)
	if err != nil {
		return false, nil //nolint:nilerr // as above
	}
	if len(resources) > 0 && !anyMatches(resources, r.Resource) || len(others) > 0 && anyMatches(others, r.Resource) {
		return false, nil
	}
	for operator, keys := range st.Condition {
		for key, values := range keys {
			is, err := r.condition(st.Effect, operator, key, values)
			if err != nil || !is {
				return false, err
			}
		}
	}
	return true, nil
}

// has says whether a principal is among those that a statement names: itself, its account, everybody.
func (p principals) has(who Principal) bool {
	for _, name := range p["AWS"] {
		if name == "*" || name == who.ARN || name == who.Account || name == "arn:aws:iam::"+who.Account+":root" {
			return true
		}
	}
	return false
}

// filled puts variables in. One without a value is an error: IAM has such a text match nothing.
func (r Request) filled(texts []string) ([]string, error) {
	out := make([]string, 0, len(texts))
	for _, t := range texts {
		for {
			before, rest, found := strings.Cut(t, "${")
			if !found {
				break
			}
			key, after, _ := strings.Cut(rest, "}")
			v, known := r.value(key)
			if !known {
				return nil, fmt.Errorf("%s has no value", key)
			}
			t = before + v + after
		}
		out = append(out, t)
	}
	return out, nil
}

// value is what is known of a condition's key. Who calls and what is asked for is always known; keys of a request are the caller's to say.
func (r Request) value(key string) (string, bool) {
	switch {
	case strings.EqualFold(key, "aws:PrincipalArn"):
		return r.Principal.ARN, true
	case strings.EqualFold(key, "aws:PrincipalAccount"):
		return r.Principal.Account, true
	case strings.EqualFold(key, "aws:PrincipalIsAWSService"):
		return "false", true
	}
	if tag, is := strings.CutPrefix(key, "aws:PrincipalTag/"); is {
		v, ok := r.Principal.Tags[tag]
		return v, ok
	}
	if tag, is := strings.CutPrefix(key, "aws:ResourceTag/"); is {
		v, ok := r.ResourceTags[tag]
		return v, ok
	}
	v, ok := r.Context[key]
	return v, ok
}

// ours says whether a key is of those that a caller can't choose.
func ours(key string) bool {
	for _, prefix := range []string{"aws:principalarn", "aws:principalaccount", "aws:principalisawsservice", "aws:principaltag/", "aws:resourcetag/"} {
		if strings.HasPrefix(strings.ToLower(key), prefix) {
			return true
		}
	}
	return false
}

// condition says whether one condition holds.
func (r Request) condition(effect, operator, key string, values []string) (bool, error) {
	have, known := r.value(key)
	if !known && r.AnyContext && !ours(key) {
		return effect == "Allow", nil
	}
	// Of keys that have many values a call here has one, or none, for which it doesn't hold.
	operator, any := strings.CutPrefix(operator, "ForAnyValue:")
	base, ifExists := strings.CutSuffix(operator, "IfExists")
	if base == "Null" {
		return strconv.FormatBool(!known) == values[0], nil
	}
	compare, negated, err := comparison(base)
	if err != nil {
		return false, err
	}
	if !known {
		return ifExists || negated && !any, nil
	}
	wanted, err := r.filled(values)
	if err != nil {
		return negated, nil //nolint:nilerr // a variable without a value matches nothing
	}
	for _, w := range wanted {
		if compare(w, have) {
			return !negated, nil
		}
	}
	return negated, nil
}

// comparison is what an operator compares by, and whether it is for what must not be.
func comparison(operator string) (compare func(want, have string) bool, negated bool, err error) {
	equal := func(want, have string) bool { return want == have }
	number := func(is func(want, have float64) bool) func(string, string) bool {
		return func(want, have string) bool {
			w, err1 := strconv.ParseFloat(want, 64)
			h, err2 := strconv.ParseFloat(have, 64)
			return err1 == nil && err2 == nil && is(w, h)
		}
	}
	switch operator {
	case "StringEquals":
		return equal, false, nil
	case "StringNotEquals":
		return equal, true, nil
	case "StringLike", "ArnLike", "ArnEquals": // ArnEquals behaves as ArnLike does
		return matches, false, nil
	case "StringNotLike", "ArnNotLike", "ArnNotEquals":
		return matches, true, nil
	case "Bool":
		return strings.EqualFold, false, nil
	case "NumericGreaterThanEquals":
		return number(func(w, h float64) bool { return h >= w }), false, nil
	default:
		return nil, false, fmt.Errorf("condition %s isn't known here: teach it to the checker before a policy uses it", operator)
	}
}
