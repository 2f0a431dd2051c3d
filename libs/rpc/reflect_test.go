package rpc_test

import (
	"errors"
	"io"
	"slices"
	"testing"

	"connectrpc.com/connect"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

func TestReflectionTellsOfTheServicesToWhoIsSignedIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	client := connect.NewClient[reflectionv1.ServerReflectionRequest, reflectionv1.ServerReflectionResponse](w.client(nil),
		"https://discovery.invalid"+reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName, connect.WithGRPC())
	stream := client.CallBidiStream(t.Context())
	stream.RequestHeader().Set("Authorization", "Bearer "+w.token(w.claims(nil), nil))
	ask := func(req *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		return res
	}

	var names []string
	for _, s := range ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	if want := []string{"a3os.discovery.v1.IngestService", "a3os.discovery.v1.RunService", "a3os.iam.v1.IdentityService"}; !slices.Equal(names, want) {
		t.Errorf("it tells of %v, want %v", names, want)
	}
	res := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "a3os.discovery.v1.RunService"}})
	var files []string
	for _, raw := range res.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(raw, file); err != nil {
			t.Fatal(err)
		}
		files = append(files, file.GetName())
	}
	if !slices.Contains(files, "a3os/discovery/v1/runs.proto") {
		t.Errorf("the service is described by %v", files)
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v", err)
	}

	nobody := client.CallBidiStream(t.Context())
	_ = nobody.Send(nil) // the answer says what came of it
	if _, err := nobody.Receive(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("who is not signed in gets %v", err)
	}
}
