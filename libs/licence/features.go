package licence

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	// Each registers its descriptors.
	_ "a3os.app/proto/gen/go/a3os/discovery/v1"
	_ "a3os.app/proto/gen/go/a3os/iam/v1"
)

// Features are those that methods of our APIs carry as `licensed`, sorted: what a licence can be about.
func Features() []string {
	found := map[string]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(f.Package()), "a3os.") {
			return true
		}
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				rule, ok := proto.GetExtension(f.Services().Get(i).Methods().Get(j).Options(), authzv1.E_Rule).(*authzv1.Rule)
				if ok && rule.GetLicensed() != "" {
					found[rule.GetLicensed()] = true
				}
			}
		}
		return true
	})
	return slices.Sorted(maps.Keys(found))
}

// Connectors are the kinds of systems that an integration can be of, sorted: what a licence can name beside `*`.
func Connectors() []string {
	var out []string
	fields := (&integrationsv1.Settings{}).ProtoReflect().Descriptor().Oneofs().ByName("connector").Fields()
	for i := range fields.Len() {
		out = append(out, string(fields.Get(i).Name()))
	}
	slices.Sort(out)
	return out
}
