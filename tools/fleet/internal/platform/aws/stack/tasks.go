package stack

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/awslabs/goformation/v7/cloudformation/ecs"
	"github.com/awslabs/goformation/v7/cloudformation/logs"

	"a3os.app/deploy/blueprint"
)

// Figures of tasks and their logs.
const (
	logDays     = 90
	stopSeconds = 25
	nobody      = "65534:65534"
)

// components are what a set has, and what runs of it.
func (s *set) components() error {
	s.lasting()
	return s.tasks()
}

// lasting is what components have whatever release they run: for each two roles, a log and a secret.
func (s *set) lasting() {
	for _, c := range s.blueprint.Components {
		uses := s.uses(c)
		s.role(logical(c.Name, "task-role"), s.taskRole(c.Name), "What "+c.Name+" of "+s.name()+" calls AWS as", s.trust(), s.used(uses, s.taskRole(c.Name)))
		s.starter(c.Name, uses)
	}
	if s.migrates() {
		s.starter(migration, []use{s.started(migration)})
	}
}

// starter is what ECS starts a component with.
func (s *set) starter(name string, uses []use) {
	s.role(logical(name, "start-role"), s.startRole(name), "What ECS starts "+name+" of "+s.name()+" with", s.trust(), s.starts(name, uses))
	s.add(logical(name, "log"), &logs.LogGroup{LogGroupName: new(s.logGroup(name)), KmsKeyId: new(attribute(keyID, "Arn")), RetentionInDays: new(logDays), Tags: s.tags()})
	s.secret(secretID(name), s.secretName(name), "What "+name+" of "+s.name()+" is given", s.startRole(name))
}

func secretID(component string) string { return logical(component, "secret") }

// tasks are what runs: for each component a definition of its task and a service that keeps it.
func (s *set) tasks() error {
	for _, c := range s.blueprint.Components {
		definition, err := s.component(c)
		if err != nil {
			return fmt.Errorf("render component %s of %s: %w", c.Name, s.name(), err)
		}
		s.service(c, definition)
		s.Outputs[TaskOutput(c.Name)] = Output{Description: "The task of " + c.Name, Value: ref(definition)}
	}
	if s.migrates() {
		if _, err := s.migration(); err != nil {
			return fmt.Errorf("render the migration of %s: %w", s.name(), err)
		}
	}
	return nil
}

func (s *set) component(c blueprint.Component) (string, error) {
	facts, given := s.facts(c)
	env, err := facts.Environ(s.blueprint.Env, c.Env)
	if err != nil {
		return "", err
	}
	t := task{name: c.Name, command: c.Command, env: env, given: given, resources: c.Resources, role: s.roleARN(logical(c.Name, "task-role"), s.taskRole(c.Name))}
	if len(c.Ports) > 0 {
		t.port = s.portOf(c, apiPort)
	}
	if len(c.Health.Check) > 0 {
		url := "http://127.0.0.1:" + strconv.Itoa(s.portOf(c, c.Health.Port)) + c.Health.Path
		t.healthy = slices.Concat([]string{"CMD", "/" + s.blueprint.Artefact}, c.Health.Check, []string{url})
	}
	return s.task(t), nil
}

func (s *set) migration() (string, error) {
	facts, given := s.migrationFacts()
	env, err := facts.Environ(s.blueprint.Database.Migrate.Env)
	if err != nil {
		return "", err
	}
	id := s.task(task{name: migration, command: s.blueprint.Database.Migrate.Command, env: env, given: given, resources: blueprint.DefaultResources})
	s.Outputs[MigrationOutput] = Output{Description: "The task that migrates the set's database", Value: ref(id)}
	return id, nil
}

// task is what a definition is rendered from.
type task struct {
	name    string
	command []string
	env     []string
	// given are the files that it reads, by where it finds each: keys of its secret.
	given     map[string]string
	resources blueprint.Resources
	// role that it calls AWS as; empty where it doesn't.
	role    string
	port    int
	healthy []string
}

// TaskOutput is the output of a set's stack that names the task of a component.
func TaskOutput(component string) string { return logical(component, "task") }

// MigrationOutput is the output of a set's stack that names the task that migrates its database.
const MigrationOutput = "Migration"

// Architecture is what programs of tasks are built for, as Go calls it; cpuArchitecture is what ECS calls it.
const (
	Architecture    = "amd64"
	cpuArchitecture = "X86_64"
)

// Volumes are the directories of a task that its user writes: an image has to have them, and to say whose they are.
func Volumes() []string { return []string{secretsDir, stateDir} }

// Where a task finds what it is given: in a volume of its own, on the disk that Fargate encrypts for the task and that ends with it.
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-task-storage.html
const (
	secretsDir     = "/run/a3"
	certificateDir = secretsDir + "/certificate"
	stateDir       = "/var/lib/a3"
	placer         = "place-files"
)

// task has a definition be there.
func (s *set) task(t task) string {
	log := ref(logical(t.name, "log"))
	if s.standing {
		log = s.logGroup(t.name)
	}
	size := fargateSize(t.resources)
	containers := []ecs.TaskDefinition_ContainerDefinition{s.placerOf(t, s.held(secretID(t.name)), log), s.container(t, log)}
	definition := &ecs.TaskDefinition{
		Family: new(s.called(t.name)), RequiresCompatibilities: []string{"FARGATE"}, NetworkMode: new("awsvpc"), Cpu: new(strconv.Itoa(size.cpu)), Memory: new(strconv.Itoa(size.mib)),
		RuntimePlatform:  &ecs.TaskDefinition_RuntimePlatform{CpuArchitecture: new(cpuArchitecture), OperatingSystemFamily: new("LINUX")},
		ExecutionRoleArn: new(s.roleARN(logical(t.name, "start-role"), s.startRole(t.name))), ContainerDefinitions: containers, Tags: s.tags(),
		Volumes: []ecs.TaskDefinition_Volume{{Name: new("secrets")}, {Name: new("state")}},
	}
	if t.role != "" {
		definition.TaskRoleArn = new(t.role)
	}
	return s.add(logical(t.name, "task"), definition)
}

// bare is what both containers of a task have in common: nothing of the machine, no way to write but volumes, no power.
func (s *set) bare(name, log string) ecs.TaskDefinition_ContainerDefinition {
	return ecs.TaskDefinition_ContainerDefinition{
		Name: name, Image: s.place.home().Account + ".dkr.ecr." + s.place.Region + ".amazonaws.com/" + s.repository() + "@" + s.image, User: new(nobody),
		ReadonlyRootFilesystem: new(true), Privileged: new(false),
		LinuxParameters: &ecs.TaskDefinition_LinuxParameters{InitProcessEnabled: new(false), Capabilities: &ecs.TaskDefinition_KernelCapabilities{Drop: []string{"ALL"}}},
		LogConfiguration: &ecs.TaskDefinition_LogConfiguration{LogDriver: "awslogs", Options: map[string]string{"awslogs-group": log, "awslogs-region": s.place.Region,
			"awslogs-stream-prefix": name, "mode": "non-blocking", "max-buffer-size": "4m"}},
	}
}

// placerOf puts what the component is given where it reads it, and ends before the component starts: ECS hands secrets over in variables,
// which a process hands on, shows in its dumps and can't have renewed.
func (s *set) placerOf(t task, secret, log string) ecs.TaskDefinition_ContainerDefinition {
	c := s.bare(placer, log)
	c.Command, c.Essential = []string{placer}, new(false)
	if version := s.given[t.name]; version != "" {
		c.DockerLabels = map[string]string{"a3.given": version}
	}
	c.MountPoints = []ecs.TaskDefinition_MountPoint{{SourceVolume: new("secrets"), ContainerPath: new(secretsDir), ReadOnly: new(false)}}
	for i, file := range slices.Sorted(maps.Keys(t.given)) {
		variable := "A3_FILE_" + strconv.Itoa(i+1)
		c.Environment = append(c.Environment, ecs.TaskDefinition_KeyValuePair{Name: new(variable + "_PATH"), Value: new(file)})
		c.Secrets = append(c.Secrets, ecs.TaskDefinition_Secret{Name: variable, ValueFrom: function("Fn::Join", []any{"", []string{secret, ":" + t.given[file] + "::"}})})
	}
	return c
}

func (s *set) container(t task, log string) ecs.TaskDefinition_ContainerDefinition {
	c := s.bare(t.name, log)
	c.Command, c.Essential, c.StopTimeout = t.command, new(true), new(stopSeconds)
	c.DependsOnProp = []ecs.TaskDefinition_ContainerDependency{{ContainerName: new(placer), Condition: new("SUCCESS")}}
	// A component renews its certificate, beside what it was given.
	c.MountPoints = []ecs.TaskDefinition_MountPoint{{SourceVolume: new("secrets"), ContainerPath: new(secretsDir), ReadOnly: new(t.role == "")},
		{SourceVolume: new("state"), ContainerPath: new(stateDir), ReadOnly: new(false)}}
	for _, variable := range t.env {
		name, value, _ := strings.Cut(variable, "=")
		c.Environment = append(c.Environment, ecs.TaskDefinition_KeyValuePair{Name: new(name), Value: new(fill(value))})
	}
	if t.port != 0 {
		c.PortMappings = []ecs.TaskDefinition_PortMapping{{ContainerPort: new(t.port), Protocol: new(tcp), Name: new(apiPort)}}
	}
	if len(t.healthy) > 0 {
		c.HealthCheck = &ecs.TaskDefinition_HealthCheck{Command: t.healthy, Interval: new(10), Timeout: new(5), Retries: new(3), StartPeriod: new(60)}
	}
	return c
}

// service keeps a component running. A release that does not come up is taken back by ECS itself.
func (s *set) service(c blueprint.Component, definition string) {
	count := 0
	if s.running && !slices.Contains(s.idle, c.Name) {
		count = 1
	}
	service := &ecs.Service{
		ServiceName: new(s.called(c.Name)), Cluster: new(s.of("Cluster")), TaskDefinition: new(ref(definition)), LaunchType: new("FARGATE"), PlatformVersion: new("1.4.0"), DesiredCount: new(count),
		DeploymentConfiguration: &ecs.Service_DeploymentConfiguration{MinimumHealthyPercent: new(100), MaximumPercent: new(200),
			DeploymentCircuitBreaker: &ecs.Service_DeploymentCircuitBreaker{Enable: true, Rollback: true}},
		NetworkConfiguration: &ecs.Service_NetworkConfiguration{AwsvpcConfiguration: &ecs.Service_AwsVpcConfiguration{AssignPublicIp: new("DISABLED"),
			SecurityGroups: s.groups(c), Subnets: s.subnets()}},
		ServiceRegistries:    []ecs.Service_ServiceRegistry{{RegistryArn: new(s.heldARN(nameID(c.Name)))}},
		EnableExecuteCommand: new(false), EnableECSManagedTags: new(true), PropagateTags: new("SERVICE"), Tags: s.tags(),
	}
	if c.Needs.FrontDoor && !s.unfronted {
		s.behindTheBalancer(c, service)
	}
	s.behindALink(c, service)
	if s.standing {
		// What serves nobody without another is not to be given up while that starts.
		for _, before := range c.After {
			service.AWSCloudFormationDependsOn = append(service.AWSCloudFormationDependsOn, logical(before))
		}
	}
	s.add(logical(c.Name), service)
}

// subnets are those that tasks run in, which have no addresses of the internet.
func (s *set) subnets() []string { return []string{s.of("SubnetA"), s.of("SubnetB")} }

// size is one of Fargate's.
type size struct{ cpu, mib int }

// fargateSize is the smallest task of Fargate's that has so many processors and so much memory; what a blueprint leaves out is the default's.
func fargateSize(r blueprint.Resources) size {
	if r.CPU == 0 {
		r.CPU = blueprint.DefaultResources.CPU
	}
	if r.Memory == 0 {
		r.Memory = blueprint.DefaultResources.Memory
	}
	const gib = 1024
	for _, row := range []struct {
		cpu          int
		from, to, by int
	}{{256, 512, 2 * gib, 512}, {512, gib, 4 * gib, gib}, {1024, 2 * gib, 8 * gib, gib}, {2048, 4 * gib, 16 * gib, gib}, {4096, 8 * gib, 30 * gib, gib}, {8192, 16 * gib, 60 * gib, 4 * gib}} {
		if r.CPU*1024 > float64(row.cpu) {
			continue
		}
		for mib := row.from; mib <= row.to; mib += row.by {
			if int64(r.Memory) <= int64(mib)<<20 {
				return size{row.cpu, mib}
			}
		}
	}
	return size{16384, 120 * gib}
}
