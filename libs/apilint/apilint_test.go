package apilint_test

import (
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	"a3os.app/libs/apilint"
)

func TestOurOwnAPIsHaveNoFault(t *testing.T) {
	methods := apilint.Ours()
	if len(methods) < 40 {
		t.Fatalf("only %d methods were looked at", len(methods))
	}
	for _, c := range apilint.Checks() {
		if faults := c.Of(methods); len(faults) > 0 {
			t.Errorf("%s: %s", c.Name, strings.Join(faults, "; "))
		}
	}
}

// api is a file with one method, as a builder might write it.
type api struct {
	service, method string
	rule            *authzv1.Rule
	in, out         []*descriptorpb.FieldDescriptorProto
	more            []*descriptorpb.DescriptorProto
}

func reads() *authzv1.Rule {
	return &authzv1.Rule{Level: authzv1.Level_LEVEL_WORKSPACE, Effect: authzv1.Effect_EFFECT_READ, Permission: "discovery.access.read"}
}

// field is a field; change, which may be nil, sets its rules.
func field(name string, kind descriptorpb.FieldDescriptorProto_Type, change func(*validate.FieldRules)) *descriptorpb.FieldDescriptorProto {
	f := &descriptorpb.FieldDescriptorProto{Name: &name, Type: kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	if change != nil {
		r := &validate.FieldRules{}
		change(r)
		f.Options = &descriptorpb.FieldOptions{}
		proto.SetExtension(f.Options, validate.E_Field, r)
	}
	return f
}

func text(name string) *descriptorpb.FieldDescriptorProto {
	return field(name, descriptorpb.FieldDescriptorProto_TYPE_STRING, bounded)
}

func bounded(r *validate.FieldRules) {
	r.Type = &validate.FieldRules_String_{String_: &validate.StringRules{MaxLen: proto.Uint64(10)}}
}

func pattern(p string) func(*validate.FieldRules) {
	return func(r *validate.FieldRules) {
		r.Type = &validate.FieldRules_String_{String_: &validate.StringRules{Pattern: &p}}
	}
}

func many(f *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
	f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	return f
}

func of(f *descriptorpb.FieldDescriptorProto, message string) *descriptorpb.FieldDescriptorProto {
	f.TypeName = &message
	return f
}

func (a api) methods(t *testing.T) []protoreflect.MethodDescriptor {
	t.Helper()
	for i, f := range a.in {
		f.Number = proto.Int32(int32(i + 1))
	}
	for i, f := range a.out {
		f.Number = proto.Int32(int32(i + 1))
	}
	m := &descriptorpb.MethodDescriptorProto{Name: &a.method, InputType: proto.String(".trial.v1.In"), OutputType: proto.String(".trial.v1.Out"),
		Options: &descriptorpb.MethodOptions{}}
	if a.rule != nil {
		proto.SetExtension(m.Options, authzv1.E_Rule, a.rule)
	}
	d := &descriptorpb.FileDescriptorProto{
		Name: proto.String("trial.proto"), Package: proto.String("trial.v1"), Syntax: proto.String("proto3"),
		Dependency: []string{structpb.File_google_protobuf_struct_proto.Path()},
		MessageType: append([]*descriptorpb.DescriptorProto{{Name: proto.String("In"), Field: a.in}, {Name: proto.String("Out"), Field: a.out}},
			a.more...),
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: &a.service, Method: []*descriptorpb.MethodDescriptorProto{m}}},
	}
	f, err := protodesc.NewFile(d, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return apilint.MethodsOf(f)
}

func (a api) faults(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, c := range apilint.Checks() {
		all = append(all, c.Of(a.methods(t))...)
	}
	return all
}

func TestGoodMethodHasNoFault(t *testing.T) {
	good := api{service: "ThingService", method: "ListThings", rule: reads(),
		in: []*descriptorpb.FieldDescriptorProto{
			field("page_size", descriptorpb.FieldDescriptorProto_TYPE_INT32, nil), text("page_token"),
			field("id", descriptorpb.FieldDescriptorProto_TYPE_STRING, pattern("^(res_[0-7][0-9a-z]{25})?$"))},
		out: []*descriptorpb.FieldDescriptorProto{field("next_page_token", descriptorpb.FieldDescriptorProto_TYPE_STRING, nil)},
	}
	if faults := good.faults(t); len(faults) > 0 {
		t.Fatal(faults)
	}
}

func TestEachFaultIsNamed(t *testing.T) {
	const (
		kindText  = descriptorpb.FieldDescriptorProto_TYPE_STRING
		kindBytes = descriptorpb.FieldDescriptorProto_TYPE_BYTES
		kindOther = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	)
	in := func(f ...*descriptorpb.FieldDescriptorProto) api {
		return api{service: "ThingService", method: "GetThing", rule: reads(), in: f}
	}
	deep := in(of(field("inner", kindOther, nil), ".trial.v1.Inner"))
	deep.more = []*descriptorpb.DescriptorProto{{Name: proto.String("Inner"), Field: []*descriptorpb.FieldDescriptorProto{field("note", kindText, nil)}}}
	deep.more[0].Field[0].Number = proto.Int32(1)
	noRule := in()
	noRule.rule = nil
	noPages := in()
	noPages.method = "ListThings"
	leaks := in()
	leaks.out = []*descriptorpb.FieldDescriptorProto{field("refresh_token", kindText, nil)}
	for name, c := range map[string]struct {
		api  api
		want string
	}{
		"no rule":                      {noRule, "has no rule"},
		"names a tenant":               {in(text("tenant_id")), "names a tenant (trial.v1.In.tenant_id)"},
		"names a workspace":            {in(text("workspace_id")), "names a workspace (trial.v1.In.workspace_id)"},
		"a string":                     {in(field("note", kindText, nil)), "trial.v1.In.note: a string without"},
		"a string that is only least":  {in(field("note", kindText, func(r *validate.FieldRules) { r.Required = proto.Bool(true) })), "a string without"},
		"a pattern that goes on":       {in(field("note", kindText, pattern("^[a-z]+$"))), "a string without"},
		"a pattern that isn't fixed":   {in(field("note", kindText, pattern("[a-z]{3}"))), "a string without"},
		"either of two, one unbounded": {in(field("note", kindText, pattern("^a|b{2}$"))), "a string without"},
		"bytes":                        {in(field("blob", kindBytes, nil)), "bytes without max_len"},
		"a list":                       {in(many(text("names"))), "a repeated field without max_items"},
		"anything":                     {in(of(field("any", kindOther, nil), ".google.protobuf.Struct")), "takes anything"},
		"deep inside":                  {deep, "trial.v1.Inner.note: a string without"},
		"a secret that goes in":        {in(text("api_key")), "trial.v1.In.api_key looks like a secret"},
		"a secret that comes out":      {leaks, "trial.v1.Out.refresh_token looks like a secret"},
		"a list that doesn't page":     {noPages, "has no string page_token"},
	} {
		t.Run(name, func(t *testing.T) {
			if all := strings.Join(c.api.faults(t), "\n"); !strings.Contains(all, c.want) {
				t.Errorf("want a fault that says %q, got:\n%s", c.want, all)
			}
		})
	}
}
