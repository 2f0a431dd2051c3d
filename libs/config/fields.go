package config

import (
	"fmt"
	"reflect"
	"strings"
)

// field is one variable that a configuration reads.
type field struct {
	key      string // variable, prefix included
	name     string // Go field
	typ      reflect.Type
	desc     string
	required bool
	secret   bool
}

// fieldsOf lists the variables of a configuration struct, and refuses one that could be read without anybody having said how.
func fieldsOf(t reflect.Type) ([]field, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%s is not a struct", t)
	}
	fields, err := collect(t, Prefix)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]string)
	for _, f := range fields {
		if other, twice := seen[f.key]; twice {
			return nil, fmt.Errorf("fields %s and %s both read %s", other, f.name, f.key)
		}
		seen[f.key] = f.name
	}
	return fields, nil
}

func collect(t reflect.Type, prefix string) ([]field, error) {
	var fields []field
	for f := range t.Fields() {
		tag, tagged := f.Tag.Lookup("env")
		switch {
		case tag == "-" || !f.IsExported():
			continue
		case !tagged && f.Type.Kind() == reflect.Struct:
			inner, err := collect(f.Type, prefix+f.Tag.Get("envPrefix"))
			if err != nil {
				return nil, err
			}
			fields = append(fields, inner...)
			continue
		case !tagged:
			return nil, fmt.Errorf("field %s has no env tag: name its variable, or `env:\"-\"`", f.Name)
		}
		name, options, _ := strings.Cut(tag, ",")
		if options != "" && options != "required" {
			return nil, fmt.Errorf("field %s asks for %q: this package knows the option required only", f.Name, options)
		}
		desc := f.Tag.Get("desc")
		if desc == "" {
			return nil, fmt.Errorf("field %s has no desc tag: say what %s%s is for", f.Name, prefix, name)
		}
		_, hasDefault := f.Tag.Lookup("envDefault")
		fields = append(fields, field{
			key:      prefix + name,
			name:     f.Name,
			typ:      f.Type,
			desc:     desc,
			required: !hasDefault || options == "required",
			secret:   f.Type == reflect.TypeFor[Secret](),
		})
	}
	return fields, nil
}

// nearest is the name with the least edit distance to key, or none where nothing is near enough to be meant.
func nearest(key string, names []string) string {
	best, least := "", len(key)/3+1
	for _, n := range names {
		if d := distance(strings.TrimPrefix(key, Prefix), strings.TrimPrefix(n, Prefix)); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
