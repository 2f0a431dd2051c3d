package blueprint

import (
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// shape refuses what the YAML library reads and the schema doesn't, by the type that a node is read into: nothing where something is named, a number
// where a text is meant, a broken number where a whole one is, a word for a switch. A slip of the pen would otherwise be read as something else.
func (c *checker) shape(node *yaml.Node, t reflect.Type, path ...any) {
	if node = behind(node); node == nil {
		return
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	below := func(part any) []any { return append(slices.Clone(path), part) }
	switch {
	case node.ShortTag() == "!!null":
		c.at(path, "nothing stands here: leave it out, or say what it is")
	case t == reflect.TypeFor[Bytes](): // reads itself
	case t.Kind() == reflect.Struct:
		for i := 0; i+1 < len(node.Content); i += 2 {
			// The library passes over a field that is called null.
			if key := behind(node.Content[i]); key.ShortTag() != "!!str" && key.ShortTag() != "!!merge" {
				c.at(below(key.Value), "there is no such field here")
			}
		}
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			_, value := fieldOf(node, name)
			if value == nil {
				continue
			}
			if f.Type.Kind() == reflect.String && behind(value).Value == "" && behind(value).ShortTag() == "!!str" {
				c.at(below(name), "nothing stands here: leave it out, or say what it is")
			}
			if strings.HasSuffix(name, "_timeout") && behind(value).ShortTag() == "!!int" {
				continue // milliseconds, as PostgreSQL takes them
			}
			c.shape(value, f.Type, below(name)...)
		}
	case t.Kind() == reflect.Slice:
		for i, item := range node.Content {
			c.shape(item, t.Elem(), below(i)...)
		}
	case t.Kind() == reflect.Map:
		c.shapeMap(node, t, path)
	default:
		c.scalar(node, t, path)
	}
}

func (c *checker) shapeMap(node *yaml.Node, t reflect.Type, path []any) {
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := behind(node.Content[i]), behind(node.Content[i+1])
		at := append(slices.Clone(path), key.Value)
		switch {
		case key.ShortTag() == "!!merge":
			sources := []*yaml.Node{value}
			if value.Kind == yaml.SequenceNode {
				sources = value.Content
			}
			for _, source := range sources {
				c.shapeMap(behind(source), t, path)
			}
		case key.ShortTag() != "!!str":
			c.at(at, "%q is read as something else than a name: quote it", key.Value)
		case t.Elem().Kind() == reflect.String && slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool"}, value.ShortTag()):
			// A variable's value is a text, and a number or a switch is written without quotes by everybody.
		default:
			c.shape(value, t.Elem(), at...)
		}
	}
}

// scalars are what YAML calls values that a field of a kind takes, and what to say of others.
var scalars = map[reflect.Kind]struct {
	tags []string
	want string
}{
	reflect.String:  {[]string{"!!str"}, "a text: quote it"},
	reflect.Bool:    {[]string{"!!bool"}, "a switch: it is true or false"},
	reflect.Int:     {[]string{"!!int"}, "a whole number"},
	reflect.Float64: {[]string{"!!int", "!!float"}, "a number"},
}

func (c *checker) scalar(node *yaml.Node, t reflect.Type, path []any) {
	if is := scalars[t.Kind()]; !slices.Contains(is.tags, node.ShortTag()) {
		c.at(path, "%q is not %s", node.Value, is.want)
	}
}
