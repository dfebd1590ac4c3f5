# The names a user can type.
if study.config.name not in ("all", *study.targets):

    rule:
        name:
            study.config.name
        localrule: True
        input:
            rules.all.input,


for target, (description, files) in study.targets.items():

    rule:
        name:
            target
        localrule: True
        input:
            files,


rule targets:
    localrule: True
    log:
        paths("logs/targets.log"),
    run:
        print(study.target_list())
