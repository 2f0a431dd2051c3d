package quota

import (
	"maps"
	"slices"

	"a3os.app/deploy/blueprint"
)

// Resource is one resource of a CloudFormation stack.
type Resource struct {
	// ID in its template.
	ID string
	// Type as CloudFormation writes it.
	Type string
	// VCPU that its tasks take; a service's alone.
	VCPU float64
}

// Stack is what the stack of a set holds on AWS, in the blueprint's order. Dedicated gives it a database server of its own.
func Stack(b *blueprint.Blueprint, dedicated bool) []Resource {
	var all []Resource
	add := func(id, kind string) { all = append(all, Resource{ID: id, Type: kind}) }
	add("key", "AWS::KMS::Key")
	// A namespace a set, since one of them holds 300 services and can't hold more.
	add("namespace", "AWS::ServiceDiscovery::HttpNamespace")
	for _, k := range slices.Sorted(maps.Keys(b.Keys)) {
		add("key/"+k, "AWS::SecretsManager::Secret")
	}
	for _, s := range slices.Sorted(maps.Keys(b.Stores)) {
		if b.Stores[s].Kind == blueprint.StoreBlob {
			add("store/"+s, "AWS::S3::Bucket")
		}
	}
	if b.Database != nil {
		add("owner", "AWS::SecretsManager::Secret")
		for _, r := range slices.Sorted(maps.Keys(b.Database.Roles)) {
			add("database/"+r, "AWS::SecretsManager::Secret")
		}
		if b.Database.Queue != "" {
			add("queue", "AWS::SQS::Queue")
			add("dead-letters", "AWS::SQS::Queue")
		}
		if dedicated {
			add("database", "AWS::RDS::DBInstance")
		}
	}
	for _, c := range b.Components {
		// The role that starts a task reads its secrets, so each component has both roles of its own.
		add(c.Name+"/task", "AWS::IAM::Role")
		add(c.Name+"/execution", "AWS::IAM::Role")
		add(c.Name+"/log", "AWS::Logs::LogGroup")
		add(c.Name+"/network", "AWS::EC2::SecurityGroup")
		add(c.Name+"/definition", "AWS::ECS::TaskDefinition")
		add(c.Name+"/discovery", "AWS::ServiceDiscovery::Service")
		all = append(all, Resource{ID: c.Name, Type: "AWS::ECS::Service", VCPU: fargate(c.Resources.CPU)})
	}
	return all
}

// fargate is the smallest task of Fargate's that has so many processors; a blueprint's bound of zero is that of the default.
func fargate(cpu float64) float64 {
	if cpu == 0 {
		cpu = blueprint.DefaultResources.CPU
	}
	for _, size := range []float64{0.25, 0.5, 1, 2, 4, 8} {
		if cpu <= size {
			return size
		}
	}
	return 16
}
