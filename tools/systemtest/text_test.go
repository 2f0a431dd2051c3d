package systemtest

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"a3os.app/libs/fault"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

// hostile are texts that something between here and the database might take for more than text.
func hostile() map[string]string {
	return map[string]string{
		"quotes":           `'";--\'$$ OR 1=1; DROP TABLE iam.users; --`,
		"markup":           `<script>alert(1)</script>{{.}}${jndi:ldap://x}%s%n`,
		"other alphabets":  "名前 \u202eabc\u202c 𝒳 é\u0301 \U0001F9EA",
		"NUL":              "a\x00b",
		"control":          "a\x01\x1b[31m\x7f\r\nb",
		"invalid UTF-8":    "a\xff\xfe\xc0\xafb",
		"a lone surrogate": "a\xed\xa0\x80b",
		"one megabyte":     strings.Repeat("x", 1<<20),
	}
}

// Row D33, first half: every field of text, by the descriptors, takes every text or refuses it by its rule, and nothing breaks.
func TestHostileTextIsRefusedOrTaken(t *testing.T) {
	full(t)
	t.Parallel()
	o := newOffice(t, acme())
	// Ids of nobody, so that what is destroyed is nothing.
	known := o.things.neverWas()
	callers := []caller{
		through(t, acme()).bearer(o.owner.token(t, o.workspace.GetId())),
		through(t, acme()).bearer(acme().admin(t).token(t, "")),
	}
	tried := 0
	for _, m := range methods(t) {
		if m.rule.GetPermission() == "" {
			continue
		}
		for _, f := range textFields(m.Input(), nil) {
			for what, text := range hostile() {
				for _, c := range callers {
					msg := request(t, m, known.with("svc", o.things["usr"]))
					raw, err := proto.Marshal(without(msg, f))
					if err != nil {
						t.Fatal(err)
					}
					tried++
					a, err := c.try(t, m.path(), contentType(m, "proto"), frame(m, append(raw, encoded(f, text)...)))
					switch {
					case err != nil:
						t.Errorf("%s with %s in %s: %v", m.path(), what, path(f), err)
					case a.status >= http.StatusInternalServerError || a.code == "internal" || a.code == "unknown" || a.code == "unavailable" || a.code == "deadline_exceeded":
						t.Errorf("%s with %s in %s: %s", m.path(), what, path(f), a)
					}
				}
			}
		}
	}
	const atLeast = 500
	if tried < atLeast {
		t.Errorf("only %d were tried", tried)
	}
	held(t, tried, "D33")
}

// with is the things and one more, in the place of a kind that the workspace has none of.
func (known things) with(kind, id string) things {
	out := things{kind: strings.Replace(id, "usr_", kind+"_", 1)}
	for k, v := range known {
		out[k] = v
	}
	return out
}

// textFields are the fields of text of a message and of messages in it, each as the way there.
func textFields(d protoreflect.MessageDescriptor, way []protoreflect.FieldDescriptor) [][]protoreflect.FieldDescriptor {
	var out [][]protoreflect.FieldDescriptor
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		there := append(append([]protoreflect.FieldDescriptor{}, way...), f)
		switch {
		case f.IsMap():
		case f.Kind() == protoreflect.StringKind:
			out = append(out, there)
		case f.Message() != nil && strings.HasPrefix(string(f.Message().FullName()), "a3os."):
			out = append(out, textFields(f.Message(), there)...)
		}
	}
	return out
}

func path(way []protoreflect.FieldDescriptor) string {
	var names []string
	for _, f := range way {
		names = append(names, string(f.Name()))
	}
	return strings.Join(names, ".")
}

// without is the message without what the text goes into.
func without(msg proto.Message, way []protoreflect.FieldDescriptor) proto.Message {
	msg.ProtoReflect().Clear(way[0])
	return msg
}

// encoded is the text in its field, on the wire, where no library looks at what it is.
func encoded(way []protoreflect.FieldDescriptor, text string) []byte {
	raw := []byte(text)
	for i := len(way) - 1; i >= 0; i-- {
		raw = protowire.AppendBytes(protowire.AppendTag(nil, way[i].Number(), protowire.BytesType), raw)
	}
	return raw
}

// Row D33, second half: what is taken comes back as it was, through everything that stores it.
func TestTextThatIsTakenComesBackExactly(t *testing.T) {
	full(t)
	t.Parallel()
	admin, owner := acme().admin(t), acme().invite(t)
	home := acme().workspace(t, owner).GetId()
	workspaces := client(admin, "", iamv1connect.NewWorkspaceWriteServiceClient)
	users := client(admin, "", iamv1connect.NewUserWriteServiceClient)
	integrations := client(owner, home, integrationsv1connect.NewIntegrationWriteServiceClient)
	cases := 0
	for what, text := range hostile() {
		text = name("x") + text
		check := func(field, stored string, err error) {
			cases++
			switch {
			case err == nil && stored != text:
				t.Errorf("%s: %s was given %q and has %q", what, field, text, stored)
			case err != nil && fault.KindOf(err) != fault.InvalidArgument && fault.KindOf(err) != fault.ResourceExhausted && !strings.Contains(err.Error(), "UTF-8"):
				t.Errorf("%s: %s is refused with %v", what, field, err)
			case err != nil && (what == "quotes" || what == "markup" || what == "other alphabets"):
				t.Errorf("%s: %s has to take it: %v", what, field, err)
			}
		}
		w, err := try(t, workspaces.CreateWorkspace, &iamv1.CreateWorkspaceRequest{Name: text, OwnerUserId: owner.id})
		if err == nil {
			got := ask(t, client(owner, w.GetId(), iamv1connect.NewWorkspaceServiceClient).GetWorkspace, &iamv1.GetWorkspaceRequest{})
			check("a workspace's name", got.GetName(), nil)
		} else {
			check("a workspace's name", "", err)
		}
		u, err := try(t, users.InviteUser, &iamv1.InviteUserRequest{Email: name("text") + "@example.com", DisplayName: text})
		if err == nil {
			got := ask(t, client(admin, "", iamv1connect.NewUserServiceClient).GetUser, &iamv1.GetUserRequest{UserId: u.GetUser().GetId()})
			check("a user's name", got.GetDisplayName(), nil)
		} else {
			check("a user's name", "", err)
		}
		settings := csvSettings()
		settings.GetCsv().SystemName = text
		settings.GetCsv().Columns[0].Header = text
		i, err := try(t, integrations.CreateIntegration, &integrationsv1.CreateIntegrationRequest{Name: text, Settings: settings})
		if err == nil {
			got := ask(t, client(owner, home, integrationsv1connect.NewIntegrationServiceClient).GetIntegration, &integrationsv1.GetIntegrationRequest{IntegrationId: i.GetId()})
			check("an integration's name", got.GetName(), nil)
			check("a system's name", got.GetSettings().GetCsv().GetSystemName(), nil)
			check("a column's header", got.GetSettings().GetCsv().GetColumns()[0].GetHeader(), nil)
		} else {
			check("an integration's name", "", err)
		}
	}
	held(t, cases, "D33")
}

// Row X57, through gateway and service, as JSON and as protobuf: what is nested ten thousand deep, which protobuf's own decoders take, is refused,
// in a field that nobody knows too.
func TestDeepNestingIsRefused(t *testing.T) {
	full(t)
	t.Parallel()
	const depth = 10_000
	const unknown = 1000
	group := func(kind protowire.Type) []byte { return protowire.AppendTag(nil, unknown, kind) }
	bodies := map[string][]byte{
		"json":  []byte(strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)),
		"proto": append(bytes.Repeat(group(protowire.StartGroupType), depth), bytes.Repeat(group(protowire.EndGroupType), depth)...),
	}
	lists := []byte(`{"a":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + "}")
	before, cases := hold(t), 0
	c := through(t, acme()).bearer(acme().admin(t).token(t, acme().operations(t)))
	for _, m := range methods(t) {
		if m.rule.GetPermission() == "" && m.rule.GetOpen() == "" {
			continue
		}
		for codec, body := range bodies {
			a, err := c.try(t, m.path(), contentType(m, codec), frame(m, body))
			cases++
			if err != nil || a.code == "" || a.status >= http.StatusInternalServerError || a.code == "internal" || a.code == "unknown" {
				t.Errorf("%s, nested in %s: %s, %v", m.path(), codec, a, err)
			}
		}
		a, err := c.try(t, m.path(), contentType(m, "json"), frame(m, lists))
		cases++
		if err != nil || a.code == "" || a.status >= http.StatusInternalServerError || a.code == "internal" {
			t.Errorf("%s, lists in lists: %s, %v", m.path(), a, err)
		}
	}
	before.same(t)
	held(t, cases, "X57")
}
