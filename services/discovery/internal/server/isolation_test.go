package server_test

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/access"
	"a3os.app/libs/access/accesstest"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/answer"
	"a3os.app/services/discovery/internal/discoverytest"
	"a3os.app/services/discovery/internal/server"
)

// things are ids of one workspace, by the name of the field that takes them.
type things map[string]string

// discover fills a workspace: a person with an account, a group and a table, found by one published run.
func discover(t *testing.T, env *discoverytest.Env, w id.Workspace) things {
	t.Helper()
	ann, table := accesstest.Ref("user", "ann"), accesstest.Ref("table", "payments")
	account := accesstest.Resource(ann, true)
	account.GetResource().Attributes = map[string]string{"email": "ann@acme.test"}
	integration := id.NewIntegration()
	run := env.Run(t, w, integration, discoverytest.Slice{Completed: []string{"test"}, Records: []*discoveryv1.Record{
		account, accesstest.Resource(table, false), accesstest.Entitlement(accesstest.On(table, "SELECT"), accesstest.Permission),
		accesstest.Grant(ann, accesstest.On(table, "SELECT"), false),
	}})
	var person id.Person
	if err := env.Super.QueryRow(t.Context(), "SELECT id FROM discovery.persons WHERE workspace_id = $1", w).Scan(&person); err != nil {
		t.Fatal(err)
	}
	user := access.ResourceID(integration, "user", "ann").String()
	return things{
		"run_id": run.GetId(), "to_run_id": run.GetId(), "integration_id": integration.String(), "principal": user,
		"principal by person": person.String(), "resource": access.ResourceID(integration, "table", "payments").String(),
	}
}

// never are ids that nothing ever had.
func never() things {
	resource := access.ResourceID(id.NewIntegration(), "user", "nobody").String()
	run := id.NewRun().String()
	return things{
		"run_id": run, "from_run_id": run, "to_run_id": run, "integration_id": id.NewIntegration().String(), "principal": resource,
		"principal by person": id.New[id.PersonKind]().String(), "resource": resource,
	}
}

// elsewhere says which fields are not discovery's to judge.
var elsewhere = map[string]string{
	"RunWriteService.StartRun.integration_id": "integrations is asked, in the caller's name, and says that there is no such integration",
}

// quiet says which fields may name nothing without an error: the answer is that of nothing.
var quiet = map[string]string{
	"RunService.ListRuns.integration_id":        "a filter",
	"AccessService.ListGrants.integration_id":   "a filter",
	"SourceService.RetireSource.integration_id": "what was never discovered is closed already",
}

// TestIdsOfAnotherWorkspaceAreLikeIdsThatNeverWere calls every method with every field that takes an id, found by its descriptor.
func TestIdsOfAnotherWorkspaceAreLikeIdsThatNeverWere(t *testing.T) {
	t.Parallel()
	env := discoverytest.New(t)
	own, other := id.NewWorkspace(), id.NewWorkspace()
	mine, theirs := discover(t, env, own), discover(t, env, other)
	theirs["from_run_id"] = theirs["run_id"]
	handlers := []any{server.NewRuns(env.Runs, env.Pages), server.NewAccess(answer.New(env.DB, env.Pages, env.Sources))}
	tried := 0
	for _, file := range []protoreflect.FileDescriptor{discoveryv1.File_a3os_discovery_v1_access_proto, discoveryv1.File_a3os_discovery_v1_runs_proto} {
		services := file.Services()
		for s := range services.Len() {
			for m := range services.Get(s).Methods().Len() {
				method := services.Get(s).Methods().Get(m)
				for _, field := range idFields(t, method) {
					name := string(services.Get(s).Name()) + "." + string(method.Name()) + "." + strings.Fields(field)[0]
					if elsewhere[name] != "" {
						continue
					}
					tried++
					ctx := env.In(t.Context(), own)
					gotTheirs, errTheirs := call(t, handlers, ctx, method, mine, field, theirs[field])
					gotNever, errNever := call(t, handlers, ctx, method, mine, field, never()[field])
					if describe(errTheirs) != describe(errNever) || !proto.Equal(gotTheirs, gotNever) {
						t.Errorf("%s with %s of another workspace: %v, %v; with one that never was: %v, %v", method.FullName(), field, gotTheirs, errTheirs, gotNever, errNever)
					}
					if quiet[name] == "" && fault.KindOf(errTheirs) != fault.NotFound {
						t.Errorf("%s with %s of another workspace: %v, want not found", method.FullName(), field, errTheirs)
					}
					if _, err := call(t, handlers, ctx, method, mine, field, mine[field]); err != nil && mine[field] != "" {
						t.Errorf("%s with %s of its own: %v, want an answer", method.FullName(), field, err)
					}
				}
			}
		}
	}
	if tried < 12 {
		t.Errorf("%d fields were tried: the descriptors are not read any more", tried)
	}
}

// idFields are the fields of a request that take ids. The answers' names take several kinds, and are no fields of messages' own.
func idFields(t *testing.T, method protoreflect.MethodDescriptor) []string {
	t.Helper()
	known := slices.Collect(maps.Keys(never()))
	var out []string
	fields := method.Input().Fields()
	for i := range fields.Len() {
		name := string(fields.Get(i).Name())
		if name == "job_id" { // a number of the queue's, which only a worker reports
			continue
		}
		if name == "principal" {
			out = append(out, "principal by person")
		}
		if slices.Contains(known, name) {
			out = append(out, name)
		} else if strings.HasSuffix(name, "_id") {
			t.Errorf("%s has a field %s: say in this test which ids it takes", method.FullName(), name)
		}
	}
	return out
}

// call calls a method of the handlers with the given things, one field of it set to value.
func call(t *testing.T, handlers []any, ctx context.Context, method protoreflect.MethodDescriptor, given things, field, value string) (proto.Message, error) {
	t.Helper()
	for _, h := range handlers {
		f := reflect.ValueOf(h).MethodByName(string(method.Name()))
		if !f.IsValid() {
			continue
		}
		request := reflect.New(f.Type().In(1).Elem())
		fill(t, request.Interface(), method, given, field, value)
		args := []reflect.Value{reflect.ValueOf(ctx), request}
		if f.Type().NumIn() == 3 { // a stream, which nothing is sent on before the first error
			args = append(args, reflect.Zero(f.Type().In(2)))
			if value == given[field] {
				return nil, nil
			}
		}
		out := f.Call(args)
		err, _ := out[len(out)-1].Interface().(error)
		if err != nil || len(out) == 1 {
			return nil, err
		}
		m, _ := out[0].Elem().FieldByName("Msg").Interface().(proto.Message)
		return m, nil
	}
	t.Fatalf("nobody serves %s", method.FullName())
	return nil, nil
}

// fill sets the fields of a request or of a connect.Request's message.
func fill(t *testing.T, request any, method protoreflect.MethodDescriptor, given things, field, value string) {
	t.Helper()
	message, ok := request.(proto.Message)
	if !ok {
		slot := reflect.ValueOf(request).Elem().FieldByName("Msg")
		slot.Set(reflect.New(slot.Type().Elem()))
		message, _ = slot.Interface().(proto.Message)
	}
	m := message.ProtoReflect()
	if m.Descriptor() != method.Input() {
		t.Fatalf("%s takes %s, the handler %s", method.FullName(), method.Input().FullName(), m.Descriptor().FullName())
	}
	for name, v := range given {
		if f := method.Input().Fields().ByName(protoreflect.Name(name)); f != nil {
			m.Set(f, protoreflect.ValueOfString(v))
		}
	}
	if value != "" {
		m.Set(method.Input().Fields().ByName(protoreflect.Name(strings.Fields(field)[0])), protoreflect.ValueOfString(value))
	}
}

// describe is all that a caller sees of an error.
func describe(err error) string {
	if err == nil {
		return ""
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return err.Error()
	}
	return connect.Code(f.Kind).String() + " " + f.Reason + " " + f.Message
}
