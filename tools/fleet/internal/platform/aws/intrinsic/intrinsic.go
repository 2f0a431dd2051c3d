// Package intrinsic walks over what a CloudFormation template says, for who reads templates back: it finds the functions in a value, and leaves it
// to its caller what they come out as. It shares nothing with the package that renders templates.
package intrinsic

// Resolve is a value, with every function in it in whose place function puts something. A function is an object with one key, its name; of an
// object that is none, function answers false.
func Resolve(v any, function func(name string, argument any) (out any, is bool)) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 1 {
			for name, argument := range v {
				if out, is := function(name, argument); is {
					return out
				}
			}
		}
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = Resolve(e, function)
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			out = append(out, Resolve(e, function))
		}
		return out
	default:
		return v
	}
}
