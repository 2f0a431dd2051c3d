package drift

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"a3os.app/libs/clip"
)

// normal is a value in the one form of those in which IAM and CloudFormation write the same: a list of one is the one, order in lists says
// nothing, numbers and truths are texts.
func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = normal(e)
		}
		return out
	case []any:
		if len(v) == 1 {
			return normal(v[0])
		}
		out := make([]any, 0, len(v))
		for _, e := range v {
			out = append(out, normal(e))
		}
		slices.SortFunc(out, func(a, b any) int { return strings.Compare(text(a), text(b)) })
		return out
	case unknown:
		return v
	default:
		return fmt.Sprint(v)
	}
}

func text(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("drift: write what was read: %v", err)) // what is passed came out of JSON
	}
	return string(out)
}

func same(a, b any) bool {
	var left, right any
	if json.Unmarshal([]byte(text(a)), &left) != nil || json.Unmarshal([]byte(text(b)), &right) != nil {
		return false
	}
	return text(normal(left)) == text(normal(right))
}

func holdsUnknown(v any) bool {
	switch v := v.(type) {
	case unknown:
		return true
	case map[string]any:
		for _, e := range v {
			if holdsUnknown(e) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, holdsUnknown)
	}
	return false
}

// statements are a policy's, by their names; those without one by their place.
func statements(policy any) map[string]any {
	m, _ := policy.(map[string]any)
	list, is := m["Statement"].([]any)
	if !is && m["Statement"] != nil {
		list = []any{m["Statement"]}
	}
	out := map[string]any{}
	for i, st := range list {
		fields, _ := st.(map[string]any)
		sid, _ := fields["Sid"].(string)
		if sid == "" {
			sid = fmt.Sprintf("number %d", i+1)
		}
		out[sid] = st
	}
	return out
}

// differs says how a policy differs from the one that is wanted, a part of a sentence each; none where it doesn't.
func differs(want any, have string) []string {
	read, err := parse(have)
	if err != nil {
		return []string{"it is no policy: " + err.Error()}
	}
	wanted, there := statements(want), statements(read)
	var out []string
	for _, sid := range slices.Sorted(maps.Keys(wanted)) {
		st, is := there[sid]
		switch {
		case !is:
			out = append(out, "statement "+sid+" is gone")
		case !holdsUnknown(wanted[sid]) && text(normal(wanted[sid])) != text(normal(st)):
			out = append(out, "statement "+sid+" was changed to "+clip.Text(text(st), mostTold))
		}
	}
	for _, sid := range slices.Sorted(maps.Keys(there)) {
		if _, is := wanted[sid]; !is {
			out = append(out, "statement "+sid+" was added: "+clip.Text(text(there[sid]), mostTold))
		}
	}
	return out
}

// parse reads a policy as AWS hands it out: IAM's are encoded as in a URL.
func parse(policy string) (any, error) {
	if strings.HasPrefix(policy, "%7B") {
		decoded, err := url.QueryUnescape(policy)
		if err != nil {
			return nil, err
		}
		policy = decoded
	}
	if policy == "" {
		return map[string]any{}, nil
	}
	var read any
	return read, json.Unmarshal([]byte(policy), &read)
}

// onlyDenies says that a policy gives nobody anything: as the one by which a suspended tenant's sessions end.
func onlyDenies(policy string) bool {
	read, err := parse(policy)
	if err != nil {
		return false
	}
	for _, st := range statements(read) {
		if fields, _ := st.(map[string]any); fields["Effect"] != "Deny" {
			return false
		}
	}
	return true
}
