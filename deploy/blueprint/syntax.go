package blueprint

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

var (
	yamlLine    = regexp.MustCompile(`^line (\d+): (.*)$`)
	yamlUnknown = regexp.MustCompile(`^field (\S+) not found in type `)
	yamlTwice   = regexp.MustCompile(`^mapping key "(.*)" already defined at line (\d+)$`)
	yamlWrong   = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `(.*)`)? into ")
)

// syntax turns the YAML library's errors, which know lines and Go's types, into faults of fields. root is nil where the text is no YAML.
func syntax(file string, root *yaml.Node, err error) error {
	if errors.Is(err, io.EOF) {
		return &Fault{File: file, Line: 1, Text: "there is nothing in the file"}
	}
	var several *yaml.TypeError
	texts := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	if errors.As(err, &several) {
		texts = several.Errors
	}
	var out []error
	for _, t := range texts {
		f := &Fault{File: file, Line: 1, Text: t}
		if m := yamlLine.FindStringSubmatch(t); m != nil {
			_, _ = fmt.Sscan(m[1], &f.Line)
			f.Text = m[2]
		}
		f.name(root)
		out = append(out, f)
	}
	return errors.Join(out...)
}

// name finds the field that the library's words are about, and says it in ours.
func (f *Fault) name(root *yaml.Node) {
	if m := yamlUnknown.FindStringSubmatch(f.Text); m != nil {
		f.Field = cmp.Or(fieldAt(root, "", f.Line, func(key, _ *yaml.Node) bool { return key.Value == m[1] }), m[1])
		f.Text = "there is no such field here: is it a slip of the pen, or does it stand too far to the left or right?"
		return
	}
	if m := yamlTwice.FindStringSubmatch(f.Text); m != nil {
		f.Field = cmp.Or(fieldAt(root, "", f.Line, func(key, _ *yaml.Node) bool { return key.Value == m[1] && key.Line == f.Line }), m[1])
		f.Text = "it stands in line " + m[2] + " already"
		return
	}
	m := yamlWrong.FindStringSubmatch(f.Text)
	if m == nil {
		return
	}
	// The library cuts long values short.
	begin := strings.TrimSuffix(m[2], "...")
	f.Field = fieldAt(root, "", f.Line, func(_, value *yaml.Node) bool {
		return value.ShortTag() == "!!"+m[1] && strings.HasPrefix(value.Value, begin)
	})
	what := map[string]string{"map": "several fields", "seq": "a list"}[m[1]]
	if what == "" {
		what = fmt.Sprintf("%q", m[2])
	}
	f.Text = what + " can't stand here: blueprint.schema.json says what can"
}

// fieldAt is the path of the first field whose value begins, or whose name stands, in a line, and that is like the one looked for.
func fieldAt(node *yaml.Node, path string, line int, like func(key, value *yaml.Node) bool) string {
	if node == nil {
		return ""
	}
	none := &yaml.Node{}
	look := func(at string, key, value *yaml.Node) string {
		if (key.Line == line || value.Line == line) && like(key, value) {
			return at
		}
		return fieldAt(value, at, line, like)
	}
	for i, child := range node.Content {
		var found string
		switch node.Kind {
		case yaml.MappingNode:
			if i%2 == 1 {
				key := node.Content[i-1]
				found = look(strings.TrimPrefix(path+"."+key.Value, "."), key, child)
			}
		case yaml.SequenceNode:
			found = look(fmt.Sprintf("%s[%d]", path, i), none, child)
		case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
			found = fieldAt(child, path, line, like)
		}
		if found != "" {
			return found
		}
	}
	return ""
}
