package blueprint

import (
	"maps"
	"slices"
	"sync"

	"gopkg.in/yaml.v3"
)

// keptBeside are the names under which platforms keep, beside a set's components, what is none of them: a component of that name would be given
// the address, the user or the container of the other one.
var keptBeside = map[string]string{
	"postgres":       "a set's own database server",
	"databases":      "the database server that tenants share",
	"sample":         "the sample company's database server",
	"migrate":        "whoever migrates the set's database, who holds its owner's password",
	"one-off":        "what is run once with the set's credentials",
	"recover-admin":  "what lets a tenant's admin in again",
	"machine-reader": "whoever reads the platform's machine",
}

// besideThePlane are those of the plane's own set besides.
var besideThePlane = map[string]string{
	"front":           "whoever keeps the front door's socket",
	"sample-postgres": "the sample company's database server",
}

// Taken says whose the names are that no component of a scope may have, by name. Of a tenant's those of the plane's components are among them:
// they stand in the tenants' networks under their names.
func Taken(scope Scope) map[string]string {
	out := maps.Clone(keptBeside)
	if scope == ScopePlane {
		maps.Copy(out, besideThePlane)
		return out
	}
	for _, name := range planeComponents() {
		out[name] = "a component of the plane's own set, which stands in the tenants' networks"
	}
	return out
}

// planeComponents are the names of the plane's components. Its blueprint isn't parsed for them: that is checked against these.
var planeComponents = sync.OnceValue(func() []string {
	var plane struct{ Components []struct{ Name string } }
	text, err := files.ReadFile("plane.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &plane)
	}
	if err != nil {
		panic("blueprint: the plane's own can't be read: " + err.Error()) // it is embedded, and a test reads it
	}
	var names []string
	for _, c := range plane.Components {
		names = append(names, c.Name)
	}
	return slices.Sorted(slices.Values(names))
})
