// Package config reads what one role of the binary is told, from environment variables that begin with `A3_`, into a struct
// (caarlos0/env), and refuses everything else under that prefix: a role started with another role's configuration does not
// start. All faults are told at once, by name, and no fault repeats a value. It touches no variable without the prefix (OTEL_*,
// GOMEMLIMIT, PATH, TZ …): those belong to any process.
//
// A configuration is a struct whose fields each say their variable and what it is for:
//
//	type Config struct {
//		DatabaseURL config.Secret `env:"DATABASE_URL" desc:"connection string of this service's own role"`
//		Tenant      id.Tenant     `env:"TENANT" desc:"tenant this set serves"`
//		Poll        time.Duration `env:"POLL" envDefault:"2s" desc:"how often revocations are polled"`
//		Origins     []string      `env:"ORIGINS" envDefault:"" desc:"browser origins that may call; none when empty"`
//	}
//
// A field is required unless it has an envDefault, which may be empty; a variable that is set but empty counts as not set. A
// [Secret] may come from a file instead, named by the variable with `_FILE` after it. A struct inside the struct is read with
// the prefix in its `envPrefix` tag.
package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Prefix is what the name of each of our variables begins with.
const Prefix = "A3_"

// fileSuffix follows a secret's variable where a file holds the value.
const fileSuffix = "_FILE"

// Load reads the configuration of role from environ, in the form of [os.Environ]. The error is an [*Error] that names every fault
// of the configuration; where T itself is not a configuration (a field without a desc tag, of a type that can't be read) it is
// another error, which a test of the role finds.
func Load[T any](role string, environ []string) (T, error) {
	var cfg, zero T
	fields, err := fieldsOf(reflect.TypeFor[T]())
	if err != nil {
		return zero, fmt.Errorf("configuration of role %q: %w", role, err)
	}
	values, problems := ours(environ)
	problems = append(problems, refuseUnknown(role, fields, values)...)
	problems = append(problems, readFiles(fields, values)...)
	missing := refuseMissing(fields, values)
	problems = append(problems, missing...)
	if len(missing) == 0 {
		problems = append(problems, parse(&cfg, fields, values)...)
	}
	if len(problems) > 0 {
		return zero, &Error{Role: role, Problems: problems}
	}
	return cfg, nil
}

// Error is why a role can't start with the configuration it was given.
type Error struct {
	// Role that was to start.
	Role string
	// Problems, each with the variable it is about; never empty.
	Problems []Problem
}

// Problem is one fault of a configuration.
type Problem struct {
	// Variable as it stands in the environment, or should stand.
	Variable string
	// Text is the sentence about it, the variable's name included. It never holds the value.
	Text string
}

// Error tells every problem, one a line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "role %q can't start with this configuration:", e.Role)
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.Text)
	}
	return b.String()
}

// ours takes the variables with the prefix out of environ. A variable given twice is refused, for which of them counts depends on
// who reads.
func ours(environ []string) (map[string]string, []Problem) {
	values := make(map[string]string)
	var problems []Problem
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(key, Prefix) {
			continue
		}
		if _, twice := values[key]; twice {
			problems = append(problems, problemf(key, "%s is given twice: leave one", key))
		}
		values[key] = value
	}
	return values, problems
}

// refuseUnknown finds the variables that belong to no field.
func refuseUnknown(role string, fields []field, values map[string]string) []Problem {
	known := make(map[string]bool)
	for _, f := range fields {
		known[f.key] = true
		if f.secret {
			known[f.key+fileSuffix] = true
		}
	}
	var problems []Problem
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if known[key] {
			continue
		}
		text := fmt.Sprintf("%s is not known to role %q: it belongs to another role, or is misspelt; take it away", key, role)
		if near := nearest(key, slices.Sorted(maps.Keys(known))); near != "" {
			text = fmt.Sprintf("%s is not known to role %q: did you mean %s?", key, role, near)
		}
		problems = append(problems, Problem{Variable: key, Text: text})
		delete(values, key)
	}
	return problems
}

// readFiles puts the content of files in the place of the variables that name them.
func readFiles(fields []field, values map[string]string) []Problem {
	var problems []Problem
	for _, f := range fields {
		fileKey := f.key + fileSuffix
		name, given := values[fileKey]
		if !f.secret || !given {
			continue
		}
		delete(values, fileKey)
		if name == "" {
			continue
		}
		if values[f.key] != "" {
			problems = append(problems, problemf(fileKey, "%s and %s are both set: leave one", f.key, fileKey))
			continue
		}
		value, err := readSecretFile(name)
		if err != nil {
			problems = append(problems, problemf(fileKey, "%s can't be used: %v", fileKey, err))
			// Told once is enough: what the file should hold does not count as missing too.
			value = "unread"
		}
		values[f.key] = value
	}
	return problems
}

// refuseMissing names every required variable that has no value.
func refuseMissing(fields []field, values map[string]string) []Problem {
	var problems []Problem
	for _, f := range fields {
		if !f.required || values[f.key] != "" {
			continue
		}
		text := fmt.Sprintf("%s is missing: %s", f.key, f.desc)
		if f.secret {
			text += fmt.Sprintf(" (or %s%s, a file that holds it)", f.key, fileSuffix)
		}
		problems = append(problems, Problem{Variable: f.key, Text: text})
	}
	return problems
}

// parse reads values into cfg.
func parse(cfg any, fields []field, values map[string]string) []Problem {
	err := env.ParseWithOptions(cfg, env.Options{Environment: values, Prefix: Prefix})
	if err == nil {
		return nil
	}
	all := []error{err}
	if agg, ok := errors.AsType[env.AggregateError](err); ok {
		all = agg.Errors
	}
	var problems []Problem
	for _, e := range all {
		problems = append(problems, parseProblem(e, fields))
	}
	return problems
}

// parseProblem turns an error of the env library, which knows the field, into one that knows the variable.
func parseProblem(err error, fields []field) Problem {
	bad, ok := errors.AsType[env.ParseError](err)
	if !ok {
		return Problem{Text: err.Error()}
	}
	cause := bad.Err
	// A URL can carry a password and its parser's error repeats it.
	if u, isURL := errors.AsType[*url.Error](cause); isURL {
		cause = u.Err
	}
	for _, f := range fields {
		if f.name == bad.Name && f.typ == bad.Type {
			return problemf(f.key, "%s can't be read as %s: %v; it is the %s", f.key, f.typ, cause, f.desc)
		}
	}
	return problemf(bad.Name, "field %s can't be read as %s: %v", bad.Name, bad.Type, cause)
}

func problemf(variable, format string, args ...any) Problem {
	return Problem{Variable: variable, Text: fmt.Sprintf(format, args...)}
}
