package isolation

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	"a3os.app/libs/apilint"
	"a3os.app/libs/authz"
)

// siblingCalls are the methods that list their callers, tried by siblings that aren't listed. What would act is asked with a request that
// its validation refuses: the rule stands before that, and so neither the attempt nor its control does anything.
func (w *World) siblingCalls(s *Set) []attempt {
	var out []attempt
	for _, c := range s.Components {
		d := direct(w, s, c)
		for _, m := range apilint.Ours() {
			r, listed, ok := listing(s, m)
			if !ok {
				continue
			}
			body, _ := idleRequest(r, m)
			call := func(caller *Component) ask {
				return func(ctx context.Context) answer {
					pair, err := caller.Source.GetCertificate(nil)
					if err != nil {
						return unclearWith("%v", err)
					}
					own := d
					own.certificate = pair
					return own.asWorkload(ctx, r.Procedure, body, m.IsStreamingClient() || m.IsStreamingServer())
				}
			}
			ctl := &control{what: "the listed " + listed.Name, ask: call(listed)}
			for _, sibling := range s.Components {
				if sibling != c && !slices.Contains(r.GetWorkloads(), sibling.Name) {
					out = append(out, attempt{wall: wallKeys, from: s.Name() + "/" + sibling.Name, at: s.Name() + "/" + c.Name,
						what: "call " + r.Procedure + ", which doesn't list it", ask: call(sibling), control: ctl, optional: true})
				}
			}
		}
	}
	return out
}

// listing is the rule of a method for workloads, and a component of the set that it lists.
func listing(s *Set, m protoreflect.MethodDescriptor) (authz.Rule, *Component, bool) {
	r, err := authz.RuleOf(m)
	if err != nil || len(r.GetWorkloads()) == 0 || r.GetLevel() == authzv1.Level_LEVEL_PLANE {
		return r, nil, false
	}
	if _, ok := idleRequest(r, m); !ok {
		return r, nil, false
	}
	for _, c := range s.Components {
		if slices.Contains(r.GetWorkloads(), c.Name) {
			return r, c, true
		}
	}
	return r, nil, false
}

// untried are the methods for workloads that can't be asked without being done.
func untried() (names []string) {
	for _, m := range apilint.Ours() {
		r, err := authz.RuleOf(m)
		if err != nil || len(r.GetWorkloads()) == 0 || r.GetLevel() == authzv1.Level_LEVEL_PLANE {
			continue
		}
		if _, ok := idleRequest(r, m); !ok {
			names = append(names, r.Procedure)
		}
	}
	return names
}

// idleRequest is one that does nothing, as JSON: of a method that reads, or that needs a workspace, which nobody here presents, an
// empty one; else one that the method's validation refuses. It answers false where there is none.
func idleRequest(r authz.Rule, m protoreflect.MethodDescriptor) (body []byte, ok bool) {
	empty := []byte("{}")
	if r.GetEffect() == authzv1.Effect_EFFECT_READ || r.GetLevel() == authzv1.Level_LEVEL_WORKSPACE {
		return empty, true
	}
	msg := dynamicpb.NewMessage(m.Input())
	if protovalidate.Validate(msg) != nil {
		return empty, true
	}
	for i := range m.Input().Fields().Len() {
		f := m.Input().Fields().Get(i)
		wrong, ok := outOfBounds(f)
		if !ok {
			continue
		}
		msg := dynamicpb.NewMessage(m.Input())
		msg.Set(f, wrong)
		if protovalidate.Validate(msg) == nil {
			continue
		}
		body, err := protojson.Marshal(msg)
		return body, err == nil
	}
	return nil, false
}

// outOfBounds is a value that a bounded field refuses.
func outOfBounds(f protoreflect.FieldDescriptor) (v protoreflect.Value, ok bool) {
	if f.IsList() || f.IsMap() {
		return v, false
	}
	const long = 100_000
	switch f.Kind() { //nolint:exhaustive // the other kinds have no bounds
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.Repeat("x", long)), true
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(math.MinInt32), true
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(math.MinInt64), true
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(math.MaxUint32), true
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(math.MaxInt32), true
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(make([]byte, long)), true
	}
	return v, false
}

// asWorkload says whether the caller is one that the method lists: what refuses the unlisted has a reason of its own.
func (d door) asWorkload(ctx context.Context, path string, body []byte, stream bool) answer {
	status, code, reason, err := d.told(ctx, path, body, stream)
	switch {
	case err != nil:
		return unclearWith("%v", err)
	case status == http.StatusNotFound && code == "" || code == "unimplemented":
		return answer{absent, "it is not served there"}
	case reason == "NOT_ALLOWED" || status == http.StatusUnauthorized:
		return refusedWith("HTTP %d %s %s", status, code, reason)
	case status >= http.StatusInternalServerError:
		return unclearWith("HTTP %d %s %s", status, code, reason)
	}
	return openedWith("HTTP %d %s %s", status, code, reason)
}

// told is what a request is answered; of a stream, with its first envelope.
func (d door) told(ctx context.Context, path string, body []byte, stream bool) (status int, code, reason string, err error) {
	contentType := "application/json"
	if stream {
		contentType = "application/connect+json"
		body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...) //nolint:gosec // it is made here, and small
	}
	return d.send(ctx, path, contentType, body, func(status int, from io.Reader) ([]byte, error) {
		if !stream || status != http.StatusOK {
			return io.ReadAll(from)
		}
		var head [5]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return nil, fmt.Errorf("read the stream: %w", err)
		}
		return io.ReadAll(io.LimitReader(from, int64(binary.BigEndian.Uint32(head[1:]))))
	})
}
